#include "retriever_service/serve/retriever_metrics.h"

#include <google/protobuf/util/time_util.h>

namespace retro {
namespace {

void ObserveSeconds(prometheus::Histogram& histogram, const google::protobuf::Duration& duration) {
  histogram.Observe(static_cast<double>(google::protobuf::util::TimeUtil::DurationToNanoseconds(duration)) * 1e-9);
}

}  // namespace

RetrieverMetrics::RetrieverMetrics(Metrics& metrics)
    : metrics_(metrics),
      queue_(metrics.Histogram("retro_search_queue_seconds", "A search's wait for a worker and for the embedder.")),
      embed_(metrics.Histogram("retro_search_embed_seconds", "A search's time in the embedder.")),
      search_(metrics.Histogram("retro_search_index_seconds", "A search's time in the index, of the slowest shard.")),
      fetch_(
          metrics.Histogram("retro_search_fetch_seconds", "A search's time reading the store, of the slowest shard.")),
      merge_(metrics.Histogram("retro_search_merge_seconds", "A search's time merging the shards' answers.")),
      partial_(metrics.Counter("retro_search_partial_total", "Searches that not all shards answered.")),
      neighbours_(metrics.Counter("retro_search_neighbours_total", "Neighbours returned.")) {
  for (const auto& [outcome, name] : {std::pair{pb::WRITE_OUTCOME_UNSPECIFIED, "failed"},
                                      {pb::WRITE_OUTCOME_CREATED, "created"},
                                      {pb::WRITE_OUTCOME_REPLACED, "replaced"},
                                      {pb::WRITE_OUTCOME_UNCHANGED, "unchanged"}}) {
    documents_[outcome] =
        &metrics.Counter("retro_documents_written_total", "Documents taken in, by outcome.", {{"outcome", name}});
  }
}

void RetrieverMetrics::OnSearch(const pb::SearchResponse& response) {
  ObserveSeconds(queue_, response.times().queue());
  ObserveSeconds(embed_, response.times().embed());
  ObserveSeconds(search_, response.times().search());
  ObserveSeconds(fetch_, response.times().fetch());
  ObserveSeconds(merge_, response.times().merge());
  if (response.coverage().shards_answered() < response.coverage().shards_asked()) partial_.Increment();
  for (const auto& result : response.results()) neighbours_.Increment(result.neighbours_size());
}

void RetrieverMetrics::OnDocument(const pb::DocumentResult& result) { documents_.at(result.outcome())->Increment(); }

void RetrieverMetrics::Refresh(const BatcherStats& embedder, const IngestBudget& budget) {
  const auto set = [this](const char* name, const char* help, double value, const prometheus::Labels& labels = {}) {
    metrics_.Gauge(name, help, labels).Set(value);
  };
  set("retro_embed_waiting", "Texts that wait for the embedder.", static_cast<double>(embedder.queued_queries),
      {{"kind", "query"}});
  set("retro_embed_waiting", "Texts that wait for the embedder.", static_cast<double>(embedder.queued_ingest),
      {{"kind", "ingest"}});
  set("retro_embed_batches", "Batches embedded since the start.", static_cast<double>(embedder.batches));
  set("retro_embed_texts", "Texts embedded since the start.", static_cast<double>(embedder.sequences));
  set("retro_embed_tokens", "Wordpieces embedded since the start.", static_cast<double>(embedder.tokens));
  set("retro_embed_busy_seconds", "Time that the embedder has computed since the start.", embedder.embed_seconds);
  set("retro_embed_refused", "Requests refused because too many waited, since the start.",
      static_cast<double>(embedder.refused));
  set("retro_embed_dropped", "Requests dropped because their callers had left, since the start.",
      static_cast<double>(embedder.dropped));
  set("retro_ingest_documents", "Documents in memory on their way in.", static_cast<double>(budget.documents()));
  set("retro_ingest_bytes", "Bytes of these.", static_cast<double>(budget.bytes()));
}

}  // namespace retro
