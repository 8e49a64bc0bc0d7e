// retro-model verify: a model's outputs against a reference's, made elsewhere from the same weights.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "common/torch/torch_status.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/reference.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/model_tool/command.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

struct VerifyOptions {
  std::string directory;
  std::string reference_path;
  std::string device = "cpu";
  std::string dtype = "fp32";
  double tolerance = 2e-4;
  RunOptions run;
  int threads = 0;
  bool json = false;
};

struct Comparison {
  std::string name;
  double max_abs_diff;
  std::vector<int64_t> worst_index;
  double ours, reference;  // there
  bool pass;
};

absl::StatusOr<Comparison> Compare(const SafetensorsFile& file, const std::string& name, const at::Tensor& ours,
                                   double tolerance) {
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
  RETRO_ASSIGN_OR_RETURN(const Reference reference, ReadInputs(file));
  std::vector<std::string> wanted;
  for (const std::string& name : KnownOutputs()) {
    if (file.tensors().contains(name)) wanted.push_back(name);
  }
  RETRO_ASSIGN_OR_RETURN(const auto outputs, RunReference(model, reference, wanted, options.run));
  std::vector<Comparison> comparisons;
  for (const std::string& name : wanted) {
    const auto ours = outputs.find(name);
    if (ours == outputs.end()) continue;
    RETRO_ASSIGN_OR_RETURN(Comparison comparison, Compare(file, name, ours->second, options.tolerance));
    comparisons.push_back(std::move(comparison));
  }
  if (comparisons.empty())
    return absl::InvalidArgumentError(StrCat(file.path(), " has no outputs to compare with, such as logits_f64"));
  return comparisons;
}

void PrintComparisons(const std::vector<Comparison>& comparisons, const VerifyOptions& options, bool pass) {
  if (!options.json) {
    for (const Comparison& c : comparisons) {
      std::cout << fmt::format("{:<29} max |diff| {:.3g} at {}: {:.6f}, reference {:.6f}: {}\n", c.name, c.max_abs_diff,
                               ShapeString(c.worst_index), c.ours, c.reference, c.pass ? "ok" : "FAILED");
    }
    return;
  }
  Json json = {{"model", options.directory},
               {"reference", options.reference_path},
               {"tolerance", options.tolerance},
               {"pass", pass}};
  // Of the first output, logits_f64 where there is one.
  json["max_abs_diff"] = comparisons[0].max_abs_diff;
  json["worst_index"] = comparisons[0].worst_index;
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
  RETRO_ASSIGN_OR_RETURN(const ModelNumbers numbers, ModelNumbersFromName(options.dtype));
  RETRO_ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(options.directory, options.device, {.numbers = numbers}));
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
                  StrCat("Safetensors with tokens [n], neighbours or retrieved [chunks, k, r], with or without a batch "
                         "dimension, and any of ",
                         absl::StrJoin(KnownOutputs(), ", "), "; other tensors are ignored"))
      ->required();
  app->add_option("--offset", options->run.offset,
                  "Tokens of the first chunk in the reference, 0: a full chunk; by default as the model was trained");
  app->add_option("--piece", options->run.piece,
                  "Tokens a step, to check incremental decoding (logits only); 0: all at once")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--tolerance", options->tolerance, "Greatest difference allowed")->capture_default_str();
  app->add_option("--device", options->device, "cpu, cuda or cuda:N")->capture_default_str();
  app->add_option("--dtype", options->dtype, "Numbers to compute with; the tolerance is for fp32")
      ->check(CLI::IsMember(ModelNumbersNames()))
      ->capture_default_str();
  app->add_option("--threads", options->threads, "Threads of the computation; 0: torch's choice")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_flag("--json", options->json, "Report as one JSON object");
  return {app, [options] { return RunVerify(*options); }};
}

}  // namespace retro
