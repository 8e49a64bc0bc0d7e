// retro-model verify: a model's outputs against a reference's, made elsewhere from the same weights.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "common/torch/torch_status.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/model/decoder.h"
#include "generator_service/model_tool/command.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

struct VerifyOptions {
  std::string directory;
  std::string reference_path;
  std::string device = "cpu";
  double tolerance = 1e-4;
  int64_t offset = 0;
  int64_t piece = 0;
  int threads = 0;
  bool json = false;
};

struct Inputs {
  std::vector<TokenId> tokens;
  std::vector<ChunkNeighbours> neighbours;
};

struct Comparison {
  std::string name;
  double max_abs_diff;
  std::vector<int64_t> worst_index;
  double ours, reference;  // there
  bool pass;
};

std::vector<TokenId> Ids(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.flatten().contiguous();
  const int64_t* ids = flat.const_data_ptr<int64_t>();
  std::vector<TokenId> tokens;
  // What does not fit becomes an id that no vocabulary has, for the model to refuse.
  for (int64_t i = 0; i < flat.numel(); ++i)
    tokens.push_back(std::in_range<TokenId>(ids[i]) ? static_cast<TokenId>(ids[i]) : -1);
  return tokens;
}

absl::StatusOr<Inputs> ReadInputs(const SafetensorsFile& file) {
  RETRO_ASSIGN_OR_RETURN(const at::Tensor tokens, ReadReference(file, "tokens"));
  RETRO_ASSIGN_OR_RETURN(const at::Tensor neighbours, ReadReference(file, "neighbours"));
  if (tokens.scalar_type() != at::kLong || neighbours.scalar_type() != at::kLong || tokens.dim() != 1 ||
      neighbours.dim() != 3) {
    return absl::InvalidArgumentError(StrCat(file.path(), ": needs integers tokens [n] and neighbours [chunks, k, r]"));
  }
  Inputs inputs{.tokens = Ids(tokens)};
  for (int64_t u = 0; u < neighbours.size(0); ++u)
    inputs.neighbours.push_back({neighbours.size(1), Ids(neighbours[u])});
  return inputs;
}

// Logits of all tokens, in pieces of options.piece (0: at once).
absl::StatusOr<at::Tensor> RunModel(const RetroModel& model, const Inputs& inputs, const VerifyOptions& options,
                                    bool retrieval, Trace* trace) {
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<Sequence> sequence,
                         model.NewSequence({.offset = options.offset, .retrieval = retrieval}));
  const int64_t n = static_cast<int64_t>(inputs.tokens.size());
  std::span<const ChunkNeighbours> neighbours = inputs.neighbours;
  std::vector<at::Tensor> logits;
  for (int64_t begin = 0; begin < n;) {
    const int64_t count = options.piece == 0 ? n : std::min(options.piece, n - begin);
    const int64_t chunks = sequence->options().retrieval ? sequence->ChunksCompletedBy(count) : 0;
    if (chunks > static_cast<int64_t>(neighbours.size())) {
      return absl::InvalidArgumentError(StrCat("the reference has neighbours of ", inputs.neighbours.size(),
                                               " chunks only: is --offset the one that it was made with?"));
    }
    const Piece piece{.sequence = sequence.get(),
                      .tokens = std::span(inputs.tokens).subspan(begin, count),
                      .neighbours = neighbours.first(chunks),
                      .logits = LogitsFor::kAll,
                      .trace = trace};
    RETRO_ASSIGN_OR_RETURN(std::vector<at::Tensor> result, model.Forward({&piece, 1}));
    logits.push_back(std::move(result[0]));
    neighbours = neighbours.subspan(chunks);
    begin += count;
  }
  if (retrieval && !neighbours.empty() && sequence->options().retrieval) {
    return absl::InvalidArgumentError(
        StrCat("the reference has neighbours of ", neighbours.size(),
               " chunks more than the tokens complete: is --offset the one that it was made with?"));
  }
  return at::cat(logits);
}

// Nothing if the reference has no tensor of this name.
absl::StatusOr<std::optional<Comparison>> Compare(const SafetensorsFile& file, const std::string& name,
                                                  const at::Tensor& ours, double tolerance) {
  if (!file.tensors().contains(name) || !ours.defined()) return std::nullopt;
  RETRO_ASSIGN_OR_RETURN(const at::Tensor reference, ReadReference(file, name));
  if (reference.sizes() != ours.sizes()) {
    return absl::InvalidArgumentError(StrCat(file.path(), ": '", name, "' has shape ", ShapeString(reference.sizes()),
                                             ", the model gives ", ShapeString(ours.sizes())));
  }
  const at::Tensor mine = ours.to(at::kCPU).to(at::kDouble).flatten();
  const at::Tensor difference = (mine - reference.flatten()).abs();
  int64_t worst = difference.argmax().item<int64_t>();  // NaN counts as greatest
  Comparison result{.name = name, .max_abs_diff = difference[worst].item<double>()};
  result.ours = mine[worst].item<double>();
  result.reference = reference.flatten()[worst].item<double>();
  result.pass = result.max_abs_diff <= tolerance;
  for (int64_t dimension = ours.dim() - 1; dimension >= 0; --dimension) {
    result.worst_index.insert(result.worst_index.begin(), worst % ours.size(dimension));
    worst /= ours.size(dimension);
  }
  return result;
}

absl::StatusOr<std::vector<Comparison>> CompareAll(const RetroModel& model, const SafetensorsFile& file,
                                                   const VerifyOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const Inputs inputs, ReadInputs(file));
  Trace trace;
  const bool whole = options.piece == 0;  // only then do the traces cover all tokens
  RETRO_ASSIGN_OR_RETURN(const at::Tensor on, RunModel(model, inputs, options, true, whole ? &trace : nullptr));
  RETRO_ASSIGN_OR_RETURN(const at::Tensor off, RunModel(model, inputs, options, false, nullptr));
  const std::vector<std::pair<std::string, at::Tensor>> outputs = {{"logits_f64", on},
                                                                   {"logits_off_f64", off},
                                                                   {"E_f64", trace.encoded},
                                                                   {"cond_H_f64", trace.conditioning},
                                                                   {"H_last_f64", trace.last}};
  std::vector<Comparison> comparisons;
  for (const auto& [name, ours] : outputs) {
    RETRO_ASSIGN_OR_RETURN(std::optional<Comparison> comparison, Compare(file, name, ours, options.tolerance));
    if (comparison) comparisons.push_back(*std::move(comparison));
  }
  if (comparisons.empty())
    return absl::InvalidArgumentError(StrCat(file.path(), " has no outputs to compare with, such as logits_f64"));
  return comparisons;
}

void PrintComparisons(const std::vector<Comparison>& comparisons, const VerifyOptions& options, bool pass) {
  if (!options.json) {
    for (const Comparison& c : comparisons) {
      std::cout << fmt::format("{:<16} max |diff| {:.3g} at {}: {:.6f}, reference {:.6f}: {}\n", c.name, c.max_abs_diff,
                               ShapeString(c.worst_index), c.ours, c.reference, c.pass ? "ok" : "FAILED");
    }
    return;
  }
  Json json = {{"model", options.directory},
               {"reference", options.reference_path},
               {"tolerance", options.tolerance},
               {"pass", pass}};
  for (const Comparison& c : comparisons) {
    json["outputs"][c.name] = {{"max_abs_diff", c.max_abs_diff},
                               {"worst_index", c.worst_index},
                               {"ours", c.ours},
                               {"reference", c.reference},
                               {"pass", c.pass}};
  }
  std::cout << json.dump() << "\n";
}

absl::Status RunVerify(const VerifyOptions& options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  RETRO_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(options.directory, options.device));
  RETRO_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(options.reference_path));
  RETRO_ASSIGN_OR_RETURN(const std::vector<Comparison> comparisons,
                         CatchTorch([&] { return CompareAll(*loaded.model, file, options); }));
  const bool pass = std::ranges::all_of(comparisons, &Comparison::pass);
  PrintComparisons(comparisons, options, pass);
  if (pass) return absl::OkStatus();
  return absl::DataLossError(StrCat("the model differs from the reference by more than ", options.tolerance));
}

}  // namespace

Command AddVerifyCommand(CLI::App& program) {
  const auto options = std::make_shared<VerifyOptions>();
  CLI::App* app = program.add_subcommand("verify", "Compare a model's outputs with a reference's");
  app->add_option("--model", options->directory, "The model folder")->required();
  app->add_option("--reference", options->reference_path,
                  "Safetensors with tokens [n], neighbours [chunks, k, r], and of logits_f64, logits_off_f64 (without "
                  "retrieval), "
                  "E_f64, cond_H_f64, H_last_f64 what there is")
      ->required();
  app->add_option("--offset", options->offset, "Tokens of the first chunk in the reference; 0: a full chunk")
      ->capture_default_str();
  app->add_option("--piece", options->piece,
                  "Tokens a step, to check incremental decoding (logits only); 0: all at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--tolerance", options->tolerance, "Greatest difference allowed")->capture_default_str();
  app->add_option("--device", options->device, "cpu, cuda or cuda:N")->capture_default_str();
  app->add_option("--threads", options->threads, "Threads of the computation; 0: torch's choice")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_flag("--json", options->json, "Report as one JSON object");
  return {app, [options] { return RunVerify(*options); }};
}

}  // namespace retro
