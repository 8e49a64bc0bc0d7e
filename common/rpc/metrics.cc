#include "common/rpc/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <exception>
#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"

namespace retro {
namespace {

class MetricsSource : public prometheus::Collectable {
 public:
  explicit MetricsSource(const Metrics& metrics) : metrics_(metrics) {}
  std::vector<prometheus::MetricFamily> Collect() const override { return metrics_.Collect(); }

 private:
  const Metrics& metrics_;
};

}  // namespace

prometheus::Histogram::BucketBoundaries SecondsBuckets() {
  return {1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100};
}

Metrics::Metrics() : registry_(std::make_shared<prometheus::Registry>()) {}

prometheus::Counter& Metrics::Counter(const std::string& name, const std::string& help,
                                      const prometheus::Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(labels);
}

prometheus::Gauge& Metrics::Gauge(const std::string& name, const std::string& help, const prometheus::Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels);
}

void Metrics::RemoveGauge(const std::string& name, const prometheus::Labels& labels) {
  auto& family = prometheus::BuildGauge().Name(name).Register(*registry_);
  family.Remove(&family.Add(labels));
}

prometheus::Histogram& Metrics::Histogram(const std::string& name, const std::string& help,
                                          const prometheus::Labels& labels) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_).Add(labels, SecondsBuckets());
}

void Metrics::CountRequest(const std::string& method, const std::string& code, double seconds) {
  const RequestMetrics request = OfRequests(method, code);
  request.count->Increment();
  request.seconds->Observe(seconds);
}

// Families know their members by all labels, which takes microseconds.
Metrics::RequestMetrics Metrics::OfRequests(const std::string& method, const std::string& code) {
  const MutexLock lock(mutex_);
  RequestMetrics& request = requests_[{method, code}];
  if (request.count == nullptr) {
    request.count = &Counter("retro_requests_total", "Requests answered, by method and code.",
                             {{"method", method}, {"code", code}});
    request.seconds =
        &Histogram("retro_request_seconds", "Time from a request's arrival to its answer.", {{"method", method}});
  }
  return request;
}

std::vector<prometheus::MetricFamily> Metrics::Collect() const {
  for (const auto& refresh : refresh_) refresh();
  return registry_->Collect();
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& listen, const Metrics& metrics) {
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(listen, /*num_threads=*/1);
    auto source = std::make_shared<MetricsSource>(metrics);
    exposer->RegisterCollectable(source, "/metrics$");  // a pattern: nothing below it
    return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(source), std::move(exposer)));
  } catch (const std::exception& e) {
    return absl::UnavailableError(StrCat("cannot serve metrics on ", listen, " (", e.what(),
                                         "): is the port in use? Choose another with --metrics-listen"));
  }
}

MetricsServer::MetricsServer(std::shared_ptr<prometheus::Collectable> source,
                             std::unique_ptr<prometheus::Exposer> exposer)
    : source_(std::move(source)), exposer_(std::move(exposer)) {}
MetricsServer::~MetricsServer() = default;
int MetricsServer::port() const { return exposer_->GetListeningPorts().front(); }

}  // namespace retro
