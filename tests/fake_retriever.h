// A retriever for tests: answers every query with made-up neighbours, records what it is asked, fails and dawdles on
// command.
#pragma once

#include <grpcpp/server.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro {

class FakeRetriever : public retriever::v1::RetrieverService::Service {
 public:
  explicit FakeRetriever(std::string tokenizer_fingerprint);
  ~FakeRetriever() override;

  std::string address() const;
  void Stop();

  void SetStatus(grpc::Status status);      // of searches
  void SetNextStatus(grpc::Status status);  // of the next search alone
  void SetInfoStatus(grpc::Status status);  // of the next GetInfo alone
  void SetInfoDelay(std::chrono::milliseconds delay);
  void SetDelay(std::chrono::milliseconds delay);  // of searches, also of those that are waiting
  // A search with such a query is INVALID_ARGUMENT.
  void SetRefusedText(std::string text);
  void SetCoverage(uint32_t answered, uint32_t asked);
  void SetTitle(std::string title);  // of all documents
  void SetTokenizer(std::string fingerprint);

  std::vector<retriever::v1::SearchRequest> requests() const;
  int queries() const;  // of all requests
  std::vector<std::string> request_ids() const;
  std::vector<std::string> traceparents() const;
  int cancelled() const;   // searches
  int info_calls() const;  // of GetInfo

  grpc::Status Search(grpc::ServerContext* context, const retriever::v1::SearchRequest* request,
                      retriever::v1::SearchResponse* response) override;
  grpc::Status GetInfo(grpc::ServerContext* context, const retriever::v1::GetInfoRequest* request,
                       retriever::v1::GetInfoResponse* response) override;

 private:
  std::chrono::milliseconds delay() const;

  mutable Mutex mutex_;
  std::string tokenizer_ ABSL_GUARDED_BY(mutex_);
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
  grpc::Status next_status_ ABSL_GUARDED_BY(mutex_);
  grpc::Status info_status_ ABSL_GUARDED_BY(mutex_);
  std::chrono::milliseconds delay_ ABSL_GUARDED_BY(mutex_){0};
  std::chrono::milliseconds info_delay_ ABSL_GUARDED_BY(mutex_){0};
  std::string refused_text_ ABSL_GUARDED_BY(mutex_);
  retriever::v1::Coverage coverage_ ABSL_GUARDED_BY(mutex_);
  std::string title_ ABSL_GUARDED_BY(mutex_);
  std::vector<retriever::v1::SearchRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> request_ids_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> traceparents_ ABSL_GUARDED_BY(mutex_);
  int cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  int info_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace retro
