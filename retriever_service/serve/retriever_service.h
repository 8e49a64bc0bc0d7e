// retro.retriever.v1.RetrieverService: each RPC validates, calls the router or the writer, and maps the status.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>
#include <string>

#include "common/base/worker_pool.h"
#include "common/rpc/metrics.h"
#include "common/rpc/unary.h"
#include "common/tokenizer/tokenizer.h"
#include "retriever_service/ingest/collections.h"
#include "retriever_service/ingest/document_writer.h"
#include "retriever_service/ingest/ingest_budget.h"
#include "retriever_service/query/router.h"
#include "retriever_service/serve/open_streams.h"
#include "retriever_service/serve/retriever_metrics.h"

namespace retro {

// What the service calls; all must outlive it.
struct RetrieverParts {
  ShardMap& shards;
  Router& router;
  DocumentWriter& writer;
  Collections& collections;
  Embedding& embedding;
  const Tokenizer& tokenizer;
  UnaryRunner& runner;
  UnaryRunner& write_runner;   // with workers and memory of its own: writes wait for disks, replicas and the embedder
  UnaryRunner& cut_runner;     // with workers of its own and the memory of writes: texts that are only cut
  WorkerPool& ingest_workers;  // documents
  IngestBudget& ingest_budget;
  OpenStreams& open_streams;
  Metrics& metrics;
  RetrieverMetrics& retriever_metrics;
  uint64_t message_bytes_max;
  bool searches_here = false;  // not in other processes: the thread that brings a short search may carry it out
};

std::unique_ptr<grpc::Service> MakeRetrieverService(const RetrieverParts& parts);

}  // namespace retro
