// The subcommands of retro-model. Each adds itself to the program and says what to run once the command line has been
// read.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"

namespace retro {

struct Command {
  CLI::App* options = nullptr;        // owned by the program's CLI::App
  std::function<absl::Status()> run;  // after parsing; errors are one line, for the user
};

Command AddInfoCommand(CLI::App& program);
Command AddInitCommand(CLI::App& program);
Command AddImportCommand(CLI::App& program);
Command AddExportCommand(CLI::App& program);
Command AddVerifyCommand(CLI::App& program);

}  // namespace retro
