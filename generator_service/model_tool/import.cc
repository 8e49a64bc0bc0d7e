// retro-model import: another program's checkpoint as a model folder.
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/paper_importer.h"
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

absl::Status RunImport(const ImportOptions& options) {
  RETRO_RETURN_IF_ERROR(CheckOutputFolder(options.output));
  RETRO_ASSIGN_OR_RETURN(const std::shared_ptr<const Tokenizer> tokenizer, LoadModelTokenizer(options.output));
  RETRO_ASSIGN_OR_RETURN(const ImportedModel imported, ImportPaper(options.config_path, options.weights_path));
  if (tokenizer != nullptr) RETRO_RETURN_IF_ERROR(CheckTokenizerFits(imported.config, *tokenizer));
  return WriteOutputFolder(options.output, imported.config, imported.weights, tokenizer.get());
}

}  // namespace

Command AddImportCommand(CLI::App& program) {
  const auto options = std::make_shared<ImportOptions>();
  CLI::App* app = program.add_subcommand("import", "Make a model folder from another program's checkpoint");
  app->add_option("--from", options->format, "The foreign format: paper (the fp64 reference's names and layout)")
      ->required()
      ->check(CLI::IsMember({"paper"}));
  app->add_option("--config", options->config_path, "The checkpoint's config, JSON")->required();
  app->add_option("--weights", options->weights_path, "The checkpoint's weights, safetensors")->required();
  app->add_option(
      "--tokenizer", options->output.tokenizer_path,
      "The model's tokenizer; copied. Without it the model can be verified, but takes and gives token ids only");
  AddOutputOptions(*app, options->output);
  return {app, [options] { return RunImport(*options); }};
}

}  // namespace retro
