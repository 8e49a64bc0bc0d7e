#include "trainer/program.h"

#include <chrono>
#include <exception>
#include <iostream>

#include "common/base/openmp.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

int ParseAndRun(CLI::App& program, const std::vector<TrainCommand>& commands, int argc, char** argv) {
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : kExitUsage;
  }
  for (const TrainCommand& command : commands) {
    if (!command.options->parsed()) continue;
    const absl::Status status = command.run();
    if (status.ok()) return 0;
    std::cerr << program.get_name() << ": " << MessageOf(status) << "\n";
    return kExitFailed;
  }
  return kExitUsage;
}

}  // namespace

void ShowProgress(const std::string& line) {
  using Clock = std::chrono::steady_clock;
  static Clock::time_point last;
  if (Clock::now() - last < std::chrono::seconds(1)) return;
  last = Clock::now();
  std::cerr << line << "\n";
}

int RunProgram(const std::string& name, const std::string& description, const std::vector<AddCommand>& commands,
               int argc, char** argv) {
  EnsurePassiveOpenMp(argv);
  try {
    CLI::App program(description, name);
    program.require_subcommand(1);
    program.footer(StrCat("'", name, " SUBCOMMAND --help' shows a subcommand's options."));
    std::vector<TrainCommand> added;
    added.reserve(commands.size());
    for (const AddCommand add : commands) added.push_back(add(program));
    return ParseAndRun(program, added, argc, argv);
  } catch (const std::exception& error) {
    std::cerr << name << ": " << error.what() << "\n";
    return kExitFailed;
  }
}

}  // namespace retro
