// `retro` as a function.
#pragma once

#include <string>
#include <vector>

#include "cli/console.h"

namespace retro::cli {

// Runs one command line (without the program's name); returns an ExitCode.
int RunCommandLine(const std::vector<std::string>& arguments, const Console& console);

}  // namespace retro::cli
