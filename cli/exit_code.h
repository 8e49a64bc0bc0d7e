// What `retro` tells scripts; printed by `retro --help`.
#pragma once

namespace retro::cli {

enum ExitCode : int {
  kOk = 0,
  kFailed = 1,       // the server refused, or part of the work failed or was skipped
  kUsage = 2,        // the command line is wrong
  kUnreachable = 3,  // a service cannot be reached
  kInterrupted = 130,
};

}  // namespace retro::cli
