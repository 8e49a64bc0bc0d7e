// retro-model: makes, takes over, hands on, describes and checks the folders that models live in.
// Exit codes: 0 done; 1 failed, or verify found a difference; 2 wrong command line.
#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>
#include <vector>

#include "common/base/strings.h"
#include "generator_service/model_tool/command.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

int RunProgram(int argc, char** argv) {
  CLI::App program("Makes, imports, exports, describes and verifies RETRO model folders.", "retro-model");
  program.require_subcommand(1);
  program.footer("'retro-model SUBCOMMAND --help' shows a subcommand's options.");
  const std::vector<retro::Command> commands = {retro::AddInfoCommand(program), retro::AddInitCommand(program),
                                                retro::AddImportCommand(program), retro::AddExportCommand(program),
                                                retro::AddVerifyCommand(program)};
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : kExitUsage;
  }
  for (const retro::Command& command : commands) {
    if (!command.options->parsed()) continue;
    const absl::Status status = command.run();
    if (status.ok()) return 0;
    std::cerr << "retro-model: " << retro::MessageOf(status) << "\n";
    return kExitFailed;
  }
  return kExitUsage;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return RunProgram(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "retro-model: " << error.what() << "\n";
    return kExitFailed;
  }
}
