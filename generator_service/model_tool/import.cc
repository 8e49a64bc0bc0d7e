// retro-model import: another program's checkpoint as a model folder.
#include <ATen/core/Tensor.h>

#include <iostream>
#include <memory>
#include <string>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_format.h"
#include "generator_service/model_tool/command.h"
#include "generator_service/model_tool/output_folder.h"

namespace retro {
namespace {

struct ImportOptions {
  std::string format;
  std::string config_path;
  std::string weights_path;
  OutputOptions output;
};

std::string FormatsHelp() {
  std::string help = "The foreign format:";
  for (const ForeignFormat& format : ForeignFormats()) help += StrCat(" ", format.name, " (", format.description, ")");
  return help;
}

absl::Status RunImport(const ImportOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const ForeignFormat* const format, FindForeignFormat(options.format));
  RETRO_RETURN_IF_ERROR(CheckOutputFolder(options.output));
  RETRO_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer, LoadModelTokenizer(options.output));
  RETRO_ASSIGN_OR_RETURN(const ForeignModel model,
                         ForeignModel::Open(*format, options.config_path, options.weights_path));
  for (const std::string& note : model.notes()) std::cerr << "note: " << note << "\n";
  if (tokenizer != nullptr) {
    RETRO_RETURN_IF_ERROR(CheckTokenizerFits(model.config(), *tokenizer, SpareIds::kAllowed));
  }
  return WriteOutputFolder(
      options.output, {.config = model.config(), .trained_neighbours = model.trained_neighbours()},
      [&](const WeightSpec& spec) { return model.Read(spec); }, tokenizer.get());
}

}  // namespace

Command AddImportCommand(CLI::App& program) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* app = program.add_subcommand("import", "Make a model folder from another program's checkpoint");
  app->add_option("--from", options->format, FormatsHelp())->required();
  app->add_option(
         "--config", options->config_path,
         "The checkpoint's config, JSON. instructretro: retro_attention_gate there (0: retrieval off, as in NVIDIA's "
         "generation scripts; default: the checkpoint's, else 1) is the model's gate")
      ->required();
  app->add_option("--weights", options->weights_path,
                  "The checkpoint's weights: safetensors; a PyTorch file (.pt, .pth, .ckpt), read without running "
                  "anything in it; or the folder of a tensor-parallel training (latest_checkpointed_iteration.txt)")
      ->required();
  app->add_option("--tokenizer", options->output.tokenizer_path,
                  "The model's tokenizer; copied. Without it the model can be verified and exported, but not served");
  AddOutputOptions(*app, options->output);
  return {app, [options] { return RunImport(*options); }};
}

}  // namespace retro
