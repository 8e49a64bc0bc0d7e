// The generator's side of RetrieverService.Search: look-ups of chunks as asynchronous calls, none of which ever holds
// up the engine.
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/base/sync.h"
#include "generator_service/engine/neighbour_source.h"
#include "generator_service/serve/neighbour_tokens.h"
#include "generator_service/serve/retrieval_scope.h"
#include "generator_service/serve/store_view.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro {

// A channel to `target` (host:port or a dns:/// name, then round robin over its addresses). Never fails; calls do.
std::shared_ptr<grpc::Channel> MakeRetrieverChannel(const std::string& target);

// Look-ups expect RetrievalScope. A chunk that decodes to no text has no neighbours and is not asked for, nor is one
// that the caller gave neighbours for (unless they are to be filled up).
class RetrieverClient : public NeighbourSource {
 public:
  // `target` is for messages. All must outlive this.
  RetrieverClient(std::shared_ptr<grpc::Channel> channel, std::string target, const ServedModel& model,
                  NeighbourTokens& tokens, StoreView& store);
  // Cancels what is under way and waits for it.
  ~RetrieverClient() override;

  // A failure is an answer too where the scope goes on without: the chunks asked for are degraded, and what was given
  // stays. Else errors: DEADLINE_EXCEEDED; INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION as the retriever gave
  // them, with its reason; UNAVAILABLE naming the address and what to do.
  void Lookup(LookupRequest request, Callback done) override;
  void CancelLookup(uint64_t lookup) override;

  // Asks for the store's state, waits for the answer, at most this long, and notes it in the StoreView. Not from a gRPC
  // callback.
  void RefreshStore(std::chrono::milliseconds timeout_ms);

 private:
  struct Call;
  using CallPtr = std::shared_ptr<Call>;

  void AskStore(const CallPtr& call);
  void Search(const CallPtr& call);
  void OnSearched(const CallPtr& call, const grpc::Status& status);
  // As the scope wants it: with the error, or with the given neighbours alone.
  void Fail(const CallPtr& call, const absl::Status& failure);
  LookupAnswer AnswerOf(Call& call, const absl::Status& failure) const;
  FoundNeighbours Found(Call& call, size_t chunk, const CollectionView& store, bool answered) const;
  absl::Status Explain(const grpc::Status& status, std::chrono::milliseconds timeout_ms) const;
  void Complete(const CallPtr& call, absl::StatusOr<LookupAnswer> answer);

  const std::string target_;
  const std::unique_ptr<retriever::v1::RetrieverService::Stub> stub_;
  const ServedModel& model_;
  NeighbourTokens& tokens_;
  StoreView& store_;

  Mutex mutex_;
  CondVar idle_;
  std::map<uint64_t, CallPtr> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace retro
