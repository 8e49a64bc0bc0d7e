#include "common/rpc/service_main.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>

#include "common/base/status_macros.h"
#include "common/base/sync.h"
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
void WatchCertificate(const ServerTls& tls, Metrics& metrics) {
  if (!tls.enabled()) return;
  prometheus::Gauge& expiry =
      metrics.Gauge("retro_certificate_expiry_seconds", "When the server's certificate ends, in seconds since 1970.");
  metrics.BeforeScrape([tls, &expiry] {
    const auto end = ServedCertificateExpiry(tls);
    if (end.ok()) expiry.Set(std::chrono::duration<double>(end->time_since_epoch()).count());
  });
}

void LogStopping(int signal) { LogEvent(spdlog::level::info, "stopping", {{"signal", std::to_string(signal)}}); }
void LogStopped() { LogEvent(spdlog::level::info, "stopped", {}); }

// Waits for a stop signal from its making on. One that comes while the service still opens, which for a large store may
// take long, ends the process there and then: whatever it was at is made to survive that.
class StopSignal {
 public:
  static StopSignal& Get() {
    static auto* const signal = new StopSignal;  // never destroyed: its thread may outlive main
    return *signal;
  }
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // From now on whoever calls this stops the service.
  int Wait() {
    const MutexLock lock(mutex_);
    serving_ = true;
    while (signal_ == 0) came_.Wait(mutex_);
    return signal_;
  }

 private:
  StopSignal() {
    std::thread([this] { Run(); }).detach();
  }
  void Run() {
    const int signal = WaitForStopSignal();
    const MutexLock lock(mutex_);
    if (!serving_) {
      LogStopping(signal);
      LogStopped();
      std::_Exit(0);
    }
    signal_ = signal;
    came_.NotifyAll();
  }

  Mutex mutex_;
  CondVar came_;
  bool serving_ ABSL_GUARDED_BY(mutex_) = false;
  int signal_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

int RunService(CLI::App& app, const std::string& env_prefix, ServiceSettings& settings, int argc, char** argv,
               const std::function<absl::Status()>& check, const std::function<absl::Status()>& serve) {
  BlockStopSignals();  // before `check` starts a thread of gRPC's
  if (const std::optional<int> code = ReadSettings(app, env_prefix, settings, argc, argv, check)) return *code;
  absl::Status status = StartLogging(settings.log);
  if (status.ok()) {
    LogSettings(app);
    StopSignal::Get();
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
    WatchCertificate(settings.server.tls, metrics);
    RETRO_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(settings.metrics_listen, metrics));
  }
  LogEvent(spdlog::level::info, "serving", {{"port", std::to_string(port)}});
  LogStopping(StopSignal::Get().Wait());
  stop();
  LogStopped();
  return absl::OkStatus();
}

}  // namespace retro
