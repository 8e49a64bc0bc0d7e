// retro-model info: what a preset or a folder is, and its parameters counted from the weight table.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/model/config.h"
#include "generator_service/model/weight_table.h"
#include "generator_service/model_tool/command.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

struct InfoOptions {
  std::string name;
  bool json = false;
  bool weights = false;
};

struct Counts {
  int64_t matrices;           // as the paper counts
  int64_t baseline_matrices;  // the same decoder without retrieval
  int64_t all;
};

Counts CountAll(const ModelConfig& config) {
  const std::vector<WeightSpec> table = WeightTable(config);
  ModelConfig baseline = config;
  baseline.cca_layers.clear();
  return {CountMatrixParameters(table), CountMatrixParameters(WeightTable(baseline)), CountParameters(table)};
}

double Millions(int64_t count) { return static_cast<double>(count) / 1e6; }

std::string LayerList(const std::vector<int64_t>& layers) {
  return layers.empty() ? "none" : fmt::format("{}", fmt::join(layers, ", "));
}

// "decoder.3.cca.query" -> "decoder attention", ...: the rows of the table.
std::string PartOf(const WeightSpec& spec) {
  const std::string side = spec.name.substr(0, spec.name.find('.'));
  if (spec.kind == WeightKind::kEmbedding) return side + " embedding";
  if (spec.kind == WeightKind::kReadout) return side + " readout";
  for (const char* part : {"attention", "cca", "ffw"}) {
    if (spec.name.find(StrCat(".", part, ".")) != std::string::npos) return StrCat(side, " ", part);
  }
  return side + " norms";
}

// What the config says beyond the sizes, in a line.
std::string Choices(const ModelConfig& c) {
  const std::pair<bool, const char*> choices[] = {{c.gated_ffw, "gated FFW"},
                                                  {c.output_biases, "biases"},
                                                  {!c.final_norm, "no final norm"},
                                                  {!c.attention_scale, "no attention scale"},
                                                  {c.tied_readout, "tied readout"},
                                                  {c.shared_embedding, "shared embedding"},
                                                  {c.mask_pad, "pad masked"},
                                                  {c.conditioning_norm, "conditioning normed"},
                                                  {c.conditioning_cca_norm, "conditioning normed as CCA's queries"},
                                                  {c.null_key, "null key"},
                                                  {c.partial_chunk_first, "partial chunk first"}};
  std::string line = fmt::format("{} norm, {}, positions {}", NormKindName(c.norm), ActivationName(c.activation),
                                 PositionsName(c.positions));
  if (c.learned_positions != LearnedPositions::kNone) {
    line += fmt::format(" and learned ({})", LearnedPositionsName(c.learned_positions));
  }
  for (const auto& [chosen, words] : choices) {
    if (chosen) line += fmt::format(", {}", words);
  }
  if (c.gate != 1.0) line += fmt::format(", gate {}", c.gate);
  return line;
}

Json PartsJson(const ModelConfig& config) {
  Json parts = Json::object();
  for (const WeightSpec& spec : WeightTable(config)) {
    Json& part = parts[PartOf(spec)];
    part = part.is_null() ? spec.element_count() : part.get<int64_t>() + spec.element_count();
  }
  return parts;
}

void PrintJson(const std::string& name, const CheckpointInfo& info, bool weights) {
  const Counts counts = CountAll(info.config);
  Json json = {{"name", name},
               {"matrix_parameters", counts.matrices},
               {"baseline_matrix_parameters", counts.baseline_matrices},
               {"parameters", counts.all},
               {"cca_layers", info.config.cca_layers},
               {"parts", PartsJson(info.config)},
               {"config", Json::parse(ModelConfigToJson(info.config))}};
  if (!info.config.cca_layers.empty()) json["trained_neighbours"] = info.trained_neighbours;
  if (!info.revision.empty()) json["revision"] = info.revision;
  if (!info.tokenizer_fingerprint.empty()) json["tokenizer_fingerprint"] = info.tokenizer_fingerprint;
  if (!info.embedder_fingerprint.empty()) json["embedder_fingerprint"] = info.embedder_fingerprint;
  if (weights) {
    for (const WeightSpec& spec : WeightTable(info.config))
      json["weights"].push_back({{"name", spec.name}, {"shape", spec.shape}});
  }
  std::cout << json.dump() << "\n";
}

void PrintText(const std::string& name, const CheckpointInfo& info, bool weights) {
  const ModelConfig& c = info.config;
  const Counts counts = CountAll(c);
  std::cout << name << "\n"
            << fmt::format("  decoder     {} layers, width {}, FFW {}, {} heads of {}; CCA at layers {}\n", c.layers,
                           c.width, c.ffw_width, c.heads, c.head_size, LayerList(c.cca_layers));
  if (!c.cca_layers.empty()) {
    std::cout << fmt::format("  encoder     {} layers, width {}, FFW {}, {} heads of {}; conditioned at layers {}\n",
                             c.encoder_layers, c.encoder_width, c.encoder_ffw_width, c.encoder_heads,
                             c.encoder_head_size, LayerList(c.encoder_cca_layers));
  }
  std::cout << fmt::format("  tokens      vocabulary {}, chunks of {}, neighbours of {}, sequences up to {}\n",
                           c.vocabulary, c.chunk_length, c.neighbour_length, c.max_length)
            << "  choices     " << Choices(c) << "\n";
  if (!c.cca_layers.empty()) std::cout << "  trained     " << info.trained_neighbours << " neighbours a chunk\n";
  if (!info.revision.empty()) std::cout << "  revision    " << info.revision << "\n";
  if (!info.tokenizer_fingerprint.empty()) std::cout << "  tokenizer   " << info.tokenizer_fingerprint << "\n";
  if (!info.embedder_fingerprint.empty()) std::cout << "  embedder    " << info.embedder_fingerprint << "\n";
  const Json parts = PartsJson(c);
  for (const auto& [part, count] : parts.items()) {
    std::cout << fmt::format("  {:<34}{:>10.2f} M\n", part, Millions(count.get<int64_t>()));
  }
  std::cout << fmt::format("  {:<34}{:>10.2f} M\n", "all parameters", Millions(counts.all))
            << fmt::format("  {:<34}{:>10.2f} M\n", "matrices, as the paper counts", Millions(counts.matrices))
            << fmt::format("  {:<34}{:>10.2f} M\n", "the same without retrieval", Millions(counts.baseline_matrices));
  if (!weights) return;
  for (const WeightSpec& spec : WeightTable(c))
    std::cout << "  " << spec.name << " " << ShapeString(spec.shape) << "\n";
}

void PrintPresetsText() {
  std::cout << fmt::format("{:<12}{:>6}{:>8}{:>14}{:>8}  {:<36}{:>12}{:>12}\n", "preset", "width", "FFW",
                           "heads x size", "layers", "CCA at layers", "baseline", "RETRO");
  for (const std::string& name : PresetNames()) {
    const ModelConfig c = *PresetModelConfig(name);
    const Counts counts = CountAll(c);
    std::cout << fmt::format("{:<12}{:>6}{:>8}{:>14}{:>8}  {:<36}{:>10.2f} M{:>10.2f} M\n", name, c.width, c.ffw_width,
                             fmt::format("{} x {}", c.heads, c.head_size), c.layers, LayerList(c.cca_layers),
                             Millions(counts.baseline_matrices), Millions(counts.matrices));
  }
}

absl::Status RunInfo(const InfoOptions& options) {
  if (options.name.empty()) {
    if (!options.json) PrintPresetsText();
    for (const std::string& name : PresetNames()) {
      if (options.json) PrintJson(name, {.config = *PresetModelConfig(name)}, options.weights);
    }
    return absl::OkStatus();
  }
  CheckpointInfo info;
  const absl::StatusOr<ModelConfig> preset = PresetModelConfig(options.name);
  if (preset.ok()) {
    info.config = *preset;
  } else {
    absl::StatusOr<CheckpointInfo> read = ReadCheckpointInfo(options.name);
    if (absl::IsNotFound(read.status())) {
      return absl::NotFoundError(StrCat(MessageOf(read.status()), "; and ", MessageOf(preset.status())));
    }
    RETRO_RETURN_IF_ERROR(read.status());
    info = *std::move(read);
  }
  (options.json ? PrintJson : PrintText)(options.name, info, options.weights);
  return absl::OkStatus();
}

}  // namespace

Command AddInfoCommand(CLI::App& program) {
  const auto options = std::make_shared<InfoOptions>();
  CLI::App* app = program.add_subcommand("info", "Sizes, choices and parameter counts of a preset or a model folder");
  app->add_option("model", options->name, "A preset's name or a model folder; none: all presets");
  app->add_flag("--weights", options->weights, "List every weight with its shape");
  app->add_flag("--json", options->json, "One JSON object a line");
  return {app, [options] { return RunInfo(*options); }};
}

}  // namespace retro
