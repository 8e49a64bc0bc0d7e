// retro-train: makes data sets with neighbours, and trains models on them.
// Exit codes: 0 done; 1 failed; 2 wrong command line.
#include <CLI/CLI.hpp>
#include <chrono>
#include <exception>
#include <iostream>
#include <vector>

#include "common/base/openmp.h"
#include "common/base/strings.h"
#include "trainer/command.h"

namespace retro {

void ShowProgress(const std::string& line) {
  using Clock = std::chrono::steady_clock;
  static Clock::time_point last;
  if (Clock::now() - last < std::chrono::seconds(1)) return;
  last = Clock::now();
  std::cerr << line << "\n";
}

}  // namespace retro

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

int RunProgram(int argc, char** argv) {
  CLI::App program("Prepares training data with neighbours, and trains RETRO models on it.", "retro-train");
  program.require_subcommand(1);
  program.footer("'retro-train SUBCOMMAND --help' shows a subcommand's options.");
  const std::vector<retro::TrainCommand> commands = {retro::AddPrepareCommand(program), retro::AddRunCommand(program)};
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : kExitUsage;
  }
  for (const retro::TrainCommand& command : commands) {
    if (!command.options->parsed()) continue;
    const absl::Status status = command.run();
    if (status.ok()) return 0;
    std::cerr << "retro-train: " << retro::MessageOf(status) << "\n";
    return kExitFailed;
  }
  return kExitUsage;
}

}  // namespace

int main(int argc, char** argv) {
  retro::EnsurePassiveOpenMp(argv);
  try {
    return RunProgram(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "retro-train: " << error.what() << "\n";
    return kExitFailed;
  }
}
