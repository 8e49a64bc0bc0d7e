// retro-model export: a model folder as another program's checkpoint.
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/foreign_format.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/model_tool/command.h"

namespace retro {
namespace {

constexpr char kExportedConfig[] = "config.json";
constexpr char kExportedWeights[] = "weights.safetensors";

struct ExportOptions {
  std::string directory;
  std::string format;
  std::string output;
  bool force = false;
};

absl::Status RunExport(const ExportOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const ForeignFormat* const format, FindForeignFormat(options.format));
  const std::filesystem::path output(options.output);
  std::error_code error;
  if (!options.force && std::filesystem::exists(output / kExportedConfig, error)) {
    return absl::AlreadyExistsError(
        StrCat(options.output, " holds a model already: choose another --out, or replace it with --force"));
  }
  RETRO_ASSIGN_OR_RETURN(const CheckpointInfo info, ReadCheckpointInfo(options.directory));
  RETRO_ASSIGN_OR_RETURN(const auto weights, ReadCheckpointWeights(options.directory, info));
  RETRO_ASSIGN_OR_RETURN(const ExportedModel exported, ExportModel(*format, info.config, weights));
  std::filesystem::create_directories(output, error);
  if (error) return ErrnoStatus(error.value(), "cannot make folder", options.output);
  RETRO_RETURN_IF_ERROR(WriteWeights((output / kExportedWeights).string(), exported.weights, {{"format", "pt"}}));
  RETRO_RETURN_IF_ERROR(WriteFileAtomically((output / kExportedConfig).string(), exported.config.dump(2) + "\n"));
  std::cout << options.output << ": " << exported.weights.size() << " tensors in the format " << format->name << "\n";
  return absl::OkStatus();
}

}  // namespace

Command AddExportCommand(CLI::App& program) {
  const auto options = std::make_shared<ExportOptions>();
  CLI::App* app = program.add_subcommand("export", "Write a model folder as another program's checkpoint");
  std::string formats = "The foreign format:";
  for (const ForeignFormat& format : ForeignFormats()) {
    if (format.write_config != nullptr) formats += StrCat(" ", format.name, " (", format.description, ")");
  }
  app->add_option("--model", options->directory, "The model folder")->required();
  app->add_option("--to", options->format, formats)->required();
  app->add_option("--out", options->output,
                  StrCat("The folder to write ", kExportedConfig, " and ", kExportedWeights, " to"))
      ->required();
  app->add_flag("--force", options->force, "Replace what the folder holds");
  return {app, [options] { return RunExport(*options); }};
}

}  // namespace retro
