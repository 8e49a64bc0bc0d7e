// The subcommands of retro-train. Each adds itself to the program and says what to run once the command line has been
// read.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"

namespace retro {

struct TrainCommand {
  CLI::App* options = nullptr;        // owned by the program's CLI::App
  std::function<absl::Status()> run;  // after parsing; errors are one line, for the user
};

TrainCommand AddPrepareCommand(CLI::App& program);
TrainCommand AddRunCommand(CLI::App& program);

// A progress line on standard error, at most one a second.
void ShowProgress(const std::string& line);

}  // namespace retro
