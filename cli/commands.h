// The subcommands of `retro`, one file each.
#pragma once

#include <functional>

#include "CLI/App.hpp"
#include "cli/console.h"

namespace retro::cli {

// What a parsed command line asks for.
struct Invocation {
  const Console& console;
  std::function<int()> run;  // set by the subcommand that was named; returns an ExitCode
};

// Each adds its subcommand to `app`. `invocation` must outlive the parse and the run.
void AddIngestCommand(CLI::App& app, Invocation& invocation);
void AddSearchCommand(CLI::App& app, Invocation& invocation);
void AddGenerateCommand(CLI::App& app, Invocation& invocation);
void AddScoreCommand(CLI::App& app, Invocation& invocation);
void AddGetCommand(CLI::App& app, Invocation& invocation);
void AddListCommand(CLI::App& app, Invocation& invocation);
void AddDeleteCommand(CLI::App& app, Invocation& invocation);
void AddCollectionsCommand(CLI::App& app, Invocation& invocation);
void AddExportCommand(CLI::App& app, Invocation& invocation);
void AddStatsCommand(CLI::App& app, Invocation& invocation);
void AddHealthCommand(CLI::App& app, Invocation& invocation);
void AddDoctorCommand(CLI::App& app, Invocation& invocation);
void AddAdminCommand(CLI::App& app, Invocation& invocation);
void AddSnapshotCommand(CLI::App& app, Invocation& invocation);

}  // namespace retro::cli
