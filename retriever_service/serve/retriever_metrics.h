// What the retriever counts and times, beside the requests; docs/metrics.md lists it.
#pragma once

#include <map>
#include <string>

#include "common/document/protos.h"
#include "common/rpc/metrics.h"
#include "retriever_service/embed/batcher.h"
#include "retriever_service/ingest/ingest_budget.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// Any thread, except Refresh.
class RetrieverMetrics {
 public:
  explicit RetrieverMetrics(Metrics& metrics);

  void OnSearch(const pb::SearchResponse& response);
  void OnDocument(const pb::DocumentResult& result);

  // Brings what is not counted but looked at up to date; before each scrape, on its thread.
  void Refresh(const BatcherStats& embedder, const IngestBudget& budget);

 private:
  Metrics& metrics_;
  prometheus::Histogram& queue_;
  prometheus::Histogram& embed_;
  prometheus::Histogram& search_;
  prometheus::Histogram& fetch_;
  prometheus::Histogram& merge_;
  prometheus::Counter& partial_;
  prometheus::Counter& neighbours_;
  std::map<int, prometheus::Counter*> documents_;  // by outcome; fixed after construction
};

}  // namespace retro
