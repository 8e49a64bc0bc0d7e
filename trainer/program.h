// A program of the trainer: subcommands, progress and exit codes (0 done; 1 failed; 2 wrong command line).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace retro {

// A subcommand adds itself to the program and says what to run once the command line has been read.
struct TrainCommand {
  CLI::App* options = nullptr;        // owned by the program's CLI::App
  std::function<absl::Status()> run;  // after parsing; errors are one line, for the user
};
using AddCommand = TrainCommand (*)(CLI::App& program);

// All of main().
int RunProgram(const std::string& name, const std::string& description, const std::vector<AddCommand>& commands,
               int argc, char** argv);

// A progress line on standard error, at most one a second.
void ShowProgress(const std::string& line);

}  // namespace retro
