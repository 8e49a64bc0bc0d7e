// What main() is in every service, around its settings and its wiring.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "common/rpc/metrics.h"
#include "common/rpc/settings.h"

namespace retro {

// Blocks the stop signals, reads the settings that were added to `app` and checks them (see ReadSettings), starts the
// log, opens the API keys and calls `serve`, which builds the service, runs it with ServeUntilStopped and returns why
// it could not. A stop signal that comes before ServeUntilStopped waits for one ends the process there. Returns the
// process's exit code: 0 after a stop, 1 with one line on standard error if `serve` or the log failed, 2 for bad
// settings.
int RunService(CLI::App& app, const std::string& env_prefix, ServiceSettings& settings, int argc, char** argv,
               const std::function<absl::Status()>& check, const std::function<absl::Status()>& serve);

// Serves `metrics` if the settings name a port for them, logs that the service answers on `port`, waits for a stop
// signal and calls `stop`. UNAVAILABLE at once if the metrics' port is in use.
absl::Status ServeUntilStopped(const ServiceSettings& settings, Metrics& metrics, int port,
                               const std::function<void()>& stop);

}  // namespace retro
