// Settings of a service: each one is a flag, an environment variable and a key of the --config file; flags win over the
// environment, that over the file. Unknown keys are errors, in the environment those that begin like ours, but for what
// Kubernetes sets there for services (NAME_SERVICE_HOST, NAME_PORT and so on).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "common/rpc/log.h"
#include "common/rpc/server.h"

namespace retro {

// --config, --check-config, --version, and the settings that every service has.
struct ServiceSettings {
  ServerOptions server;
  LogOptions log;
  std::string metrics_listen;  // "" for none
  std::string api_keys;        // file; "": everybody may call everything
  bool check_config = false;
};

// Adds them to `app`.
void AddServiceSettings(CLI::App& app, ServiceSettings& settings);

// Reads flags, environment (`env_prefix` + the flag in capitals: RETRO_RETRIEVER_LISTEN) and file. An exit code if the
// program is to end now: 0 after --help, --version or --check-config (which prints what is in force), 2 for bad
// settings, also those of which `check` says so: what of the program's own settings contradicts itself or names
// files that cannot be used.
std::optional<int> ReadSettings(CLI::App& app, const std::string& env_prefix, const ServiceSettings& settings, int argc,
                                char** argv, const std::function<absl::Status()>& check = absl::OkStatus);

// Adds the settings of a client that this service is, of the service that it calls: --PEER-tls-ca and so on.
void AddClientSettings(CLI::App& app, const std::string& peer, ClientSecurity& security);

// INVALID_ARGUMENT for certificates, keys and addresses that cannot be served with.
absl::Status CheckServiceSettings(const ServiceSettings& settings);

// What is in force, one `key = value` a line, secrets left out.
std::string EffectiveSettings(const CLI::App& app);
// The same as one event of the log.
void LogSettings(const CLI::App& app);

}  // namespace retro
