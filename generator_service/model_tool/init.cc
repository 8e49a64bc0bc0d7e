// retro-model init: a model folder with random weights.
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/random_init.h"
#include "generator_service/model/config.h"
#include "generator_service/model_tool/command.h"
#include "generator_service/model_tool/output_folder.h"

namespace retro {
namespace {

struct InitOptions {
  std::string preset;
  std::string config_path;
  uint64_t seed = 1;
  OutputOptions output;
};

// A preset takes over the tokenizer's vocabulary; a config file must agree with it.
absl::StatusOr<ModelConfig> ConfigFor(const InitOptions& options, const Tokenizer& tokenizer) {
  if (!options.preset.empty()) {
    RETRO_ASSIGN_OR_RETURN(ModelConfig config, PresetModelConfig(options.preset));
    config.vocabulary = tokenizer.vocabulary_size();
    if (tokenizer.pad_id() >= 0) config.pad_id = tokenizer.pad_id();
    RETRO_RETURN_IF_ERROR(CheckTokenizerFits(config, tokenizer, SpareIds::kRefused));
    return config;
  }
  RETRO_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.config_path));
  const absl::StatusOr<ModelConfig> config = ModelConfigFromJson(text);
  if (!config.ok()) return absl::InvalidArgumentError(StrCat(options.config_path, ": ", MessageOf(config.status())));
  RETRO_RETURN_IF_ERROR(CheckTokenizerFits(*config, tokenizer, SpareIds::kRefused));
  return *config;
}

absl::Status RunInit(const InitOptions& options) {
  RETRO_RETURN_IF_ERROR(CheckOutputFolder(options.output));
  RETRO_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer, LoadModelTokenizer(options.output));
  RETRO_ASSIGN_OR_RETURN(const ModelConfig config, ConfigFor(options, *tokenizer));
  RETRO_ASSIGN_OR_RETURN(const auto weights, RandomWeights(config, options.seed));
  return WriteOutputFolder(
      options.output, {.config = config}, [&](const WeightSpec& spec) { return weights.at(spec.name); },
      tokenizer.get());
}

}  // namespace

Command AddInitCommand(CLI::App& program) {
  const auto options = std::make_shared<InitOptions>();
  CLI::App* app = program.add_subcommand("init", "Make a model folder with random weights");
  CLI::Option* preset = app->add_option(
      "--preset", options->preset,
      "retro-demo (not the form of the shipped demo model), retro-172m, retro-425m, retro-1.5b or retro-7.5b");
  CLI::Option* config =
      app->add_option("--config", options->config_path, "A model config (JSON, as in config.json's \"model\")");
  preset->excludes(config);
  app->callback([preset, config] {
    if (preset->empty() && config->empty()) throw CLI::RequiredError("--preset or --config");
  });
  app->add_option("--tokenizer", options->output.tokenizer_path, "SentencePiece *.model or WordPiece vocab.txt; copied")
      ->required();
  app->add_option("--seed", options->seed, "Seed of the random weights")->capture_default_str();
  AddOutputOptions(*app, options->output);
  return {app, [options] { return RunInit(*options); }};
}

}  // namespace retro
