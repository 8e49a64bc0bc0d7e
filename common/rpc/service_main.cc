#include "common/rpc/service_main.h"

#include <cstdio>
#include <memory>
#include <optional>

#include "common/base/status_macros.h"
#include "common/rpc/log.h"
#include "common/rpc/process_metrics.h"
#include "common/rpc/server.h"

namespace retro {
namespace {

absl::Status OpenAccess(ServiceSettings& settings) {
  if (settings.api_keys.empty()) {
    if (!IsLoopback(settings.server.listen) && settings.server.tls.client_ca.empty()) {
      LogEvent(spdlog::level::warn, "warning",
               {{"message", "whoever reaches " + settings.server.listen +
                                " may read and change everything: no --api-keys, no --tls-client-ca"}});
    }
    return absl::OkStatus();
  }
  RETRO_ASSIGN_OR_RETURN(settings.server.access, AccessControl::Open(settings.api_keys));
  return absl::OkStatus();
}

// When the certificate ends, so that an alert can tell in time.
void WatchCertificate(const std::string& path, Metrics& metrics) {
  if (path.empty()) return;
  prometheus::Gauge& expiry =
      metrics.Gauge("retro_certificate_expiry_seconds", "When the server's certificate ends, in seconds since 1970.");
  metrics.BeforeScrape([path, &expiry] {
    const auto end = CertificateExpiry(path);
    if (end.ok()) expiry.Set(std::chrono::duration<double>(end->time_since_epoch()).count());
  });
}

}  // namespace

int RunService(CLI::App& app, const std::string& env_prefix, ServiceSettings& settings, int argc, char** argv,
               const std::function<absl::Status()>& check, const std::function<absl::Status()>& serve) {
  BlockStopSignals();  // before `check` starts a thread of gRPC's
  if (const std::optional<int> code = ReadSettings(app, env_prefix, settings, argc, argv, check)) return *code;
  absl::Status status = StartLogging(settings.log);
  if (status.ok()) {
    LogSettings(app);
    status = OpenAccess(settings);
  }
  if (status.ok()) {
    status = serve();
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), std::string(status.message()).c_str());
  return 1;
}

absl::Status ServeUntilStopped(const ServiceSettings& settings, Metrics& metrics, int port,
                               const std::function<void()>& stop) {
  std::unique_ptr<MetricsServer> metrics_server;
  if (!settings.metrics_listen.empty()) {
    WatchProcess(metrics);
    WatchCertificate(settings.server.tls.certificate, metrics);
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
