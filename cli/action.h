// What one of a command's actions is, such as `retro snapshot create`.
#pragma once

#include <memory>
#include <string>

#include "CLI/App.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"

namespace retro::cli {

// Adds an action that asks a retriever. `Options` has a member `common`; `run` returns an ExitCode. What is returned is
// for further options. `invocation` must outlive the parse and the run.
template <typename Options>
CLI::App* AddAction(CLI::App& command, const std::shared_ptr<Options>& options, Invocation& invocation,
                    const std::string& name, const std::string& help, int (*run)(const Options&, const Console&)) {
  CLI::App* action = command.add_subcommand(name, help);
  AddCommonOptions(*action, options->common, {.retriever = true, .generator = false, .collection = false});
  action->callback([options, &invocation, run] {
    invocation.run = [options, &invocation, run] { return run(*options, invocation.console); };
  });
  return action;
}

}  // namespace retro::cli
