#include "common/rpc/service_main.h"

#include <cstdio>
#include <memory>
#include <optional>

#include "common/base/status_macros.h"
#include "common/rpc/log.h"
#include "common/rpc/server.h"

namespace retro {

int RunService(CLI::App& app, const std::string& env_prefix, const ServiceSettings& settings, int argc, char** argv,
               const std::function<absl::Status()>& serve) {
  if (const std::optional<int> code = ReadSettings(app, env_prefix, settings, argc, argv)) return *code;
  absl::Status status = StartLogging(settings.log);
  if (status.ok()) {
    LogSettings(app);
    BlockStopSignals();
    status = serve();
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), std::string(status.message()).c_str());
  return 1;
}

absl::Status ServeUntilStopped(const ServiceSettings& settings, const Metrics& metrics, int port,
                               const std::function<void()>& stop) {
  std::unique_ptr<MetricsServer> metrics_server;
  if (!settings.metrics_listen.empty()) {
    RETRO_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(settings.metrics_listen, metrics));
  }
  LogEvent(spdlog::level::info, "serving", {{"port", std::to_string(port)}});
  const int signal = WaitForStopSignal();
  LogEvent(spdlog::level::info, "stopping", {{"signal", std::to_string(signal)}});
  stop();
  LogEvent(spdlog::level::info, "stopped", {});
  return absl::OkStatus();
}

}  // namespace retro
