// The subcommands of retro-train.
#pragma once

#include "trainer/program.h"

namespace retro {

TrainCommand AddPrepareCommand(CLI::App& program);
TrainCommand AddRunCommand(CLI::App& program);
TrainCommand AddFitCommand(CLI::App& program);

}  // namespace retro
