// Prometheus metrics of a process: what every service counts, and the port that they are read from.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/sync.h"

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace retro {

// Buckets for durations in seconds, 0.1 ms to 100 s.
prometheus::Histogram::BucketBoundaries SecondsBuckets();

// The metrics of one process. Families are made once, at start; the returned references live as long as this, or until
// RemoveGauge. Any thread.
class Metrics {
 public:
  Metrics();

  prometheus::Counter& Counter(const std::string& name, const std::string& help, const prometheus::Labels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const prometheus::Labels& labels = {});
  // It is shown no more; nobody may use a reference to it. For what it tells of is gone.
  void RemoveGauge(const std::string& name, const prometheus::Labels& labels);
  // Of seconds.
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help,
                                   const prometheus::Labels& labels = {});

  // retro_requests_total{method,code} and retro_request_seconds{method}.
  void CountRequest(const std::string& method, const std::string& code, double seconds);

  // Called before each scrape, on its thread: for gauges of what is looked at, not counted. What it uses must outlive
  // the MetricsServer. Before that is started.
  void BeforeScrape(std::function<void()> refresh) { refresh_.push_back(std::move(refresh)); }

  // All of them, as a scrape sees them.
  std::vector<prometheus::MetricFamily> Collect() const;

 private:
  struct RequestMetrics {
    prometheus::Counter* count = nullptr;
    prometheus::Histogram* seconds = nullptr;
  };
  RequestMetrics OfRequests(const std::string& method, const std::string& code) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::shared_ptr<prometheus::Registry> registry_;
  Mutex mutex_;
  std::map<std::pair<std::string, std::string>, RequestMetrics> requests_ ABSL_GUARDED_BY(mutex_);  // method and code
  std::vector<std::function<void()>> refresh_;
};

// Serves GET /metrics, plain HTTP, and nothing else, until destroyed.
class MetricsServer {
 public:
  // `listen` is host:port; port 0 picks one. UNAVAILABLE if the port is in use.
  // `metrics` must outlive the result.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& listen, const Metrics& metrics);
  ~MetricsServer();
  int port() const;

 private:
  MetricsServer(std::shared_ptr<prometheus::Collectable> source, std::unique_ptr<prometheus::Exposer> exposer);
  std::shared_ptr<prometheus::Collectable> source_;  // the exposer holds it weakly
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace retro
