// Prometheus metrics of a process: what every service counts, and the port that they are read from.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace prometheus {
class Exposer;
}

namespace retro {

// Buckets for durations in seconds, 0.1 ms to 100 s.
prometheus::Histogram::BucketBoundaries SecondsBuckets();

// The metrics of one process. Families are made once, at start; the returned references live as long as this. Any
// thread.
class Metrics {
 public:
  Metrics();

  prometheus::Counter& Counter(const std::string& name, const std::string& help, const prometheus::Labels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const prometheus::Labels& labels = {});
  // Of seconds.
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help,
                                   const prometheus::Labels& labels = {});

  // retro_requests_total{method,code} and retro_request_seconds{method}.
  void CountRequest(const std::string& method, const std::string& code, double seconds);

  std::shared_ptr<prometheus::Registry> registry() const { return registry_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

// Serves GET /metrics, plain HTTP, and nothing else, until destroyed.
class MetricsServer {
 public:
  // `listen` is host:port; port 0 picks one. UNAVAILABLE if the port is in use.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& listen, const Metrics& metrics);
  ~MetricsServer();
  int port() const;

 private:
  explicit MetricsServer(std::unique_ptr<prometheus::Exposer> exposer);
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace retro
