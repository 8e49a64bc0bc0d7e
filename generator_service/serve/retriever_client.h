// The generator's side of RetrieverService.Search: look-ups of chunks as asynchronous calls, none of which ever holds
// up the engine. Look-ups that come together go out together (see ShareOutQueries). Texts are decoded and answers
// tokenised by threads of its own: neither the engine's nor gRPC's wait for that, unless hundreds of look-ups do.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/byte_budget.h"
#include "common/base/sync.h"
#include "common/base/worker_pool.h"
#include "common/rpc/credentials.h"
#include "generator_service/engine/neighbour_source.h"
#include "generator_service/serve/chunk_lookup.h"
#include "generator_service/serve/neighbour_tokens.h"
#include "generator_service/serve/store_view.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro {

// A channel to `target` (host:port or a dns:/// name, then round robin over its addresses). Errors of MakeChannel;
// whether anybody is there is seen by the calls.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeRetrieverChannel(const std::string& target,
                                                                    const ClientSecurity& security = ClientSecurity());

// Look-ups expect RetrievalScope. A chunk that decodes to no text has no neighbours and is not asked for, nor is one
// that the caller gave neighbours for (unless they are to be filled up).
class RetrieverClient : public NeighbourSource {
 public:
  // `target` is for messages; `budget` holds what is found, until its readers have it. All must outlive this.
  RetrieverClient(std::shared_ptr<grpc::Channel> channel, std::string target, const ServedModel& model,
                  NeighbourTokens& tokens, StoreView& store, ByteBudget& budget);
  // Cancels what is under way and waits for it.
  ~RetrieverClient() override;

  // Answers as ChunkLookup::Answer. Errors: DEADLINE_EXCEEDED; INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION and
  // RESOURCE_EXHAUSTED as the retriever gave them, with its reason and delay; UNAVAILABLE naming the address and what
  // to do; RESOURCE_EXHAUSTED too where the budget has no room for what was found. A retriever that is full is asked
  // again after the delay that it names, as long as the look-up has time; so is one that is gone in the middle, a few
  // times and soon, since another one may stand by.
  void Lookup(std::vector<LookupRequest> requests, Callback done) override;
  // A call that nobody waits for any more is cancelled.
  void CancelLookup(uint64_t lookup) override;

  // Asks for the store's state and waits for the answer, at most this long or until `context`, a new one, is cancelled.
  // Nothing if there is none. Not from a gRPC callback.
  std::optional<retriever::v1::GetInfoResponse> FetchStore(grpc::ClientContext& context,
                                                           std::chrono::milliseconds timeout_ms);

 private:
  struct Call;
  using CallPtr = std::shared_ptr<Call>;
  using Rpc = void (RetrieverClient::*)(const CallPtr&);
  struct Pending {
    ChunkLookupPtr lookup;
    Callback done;
    std::vector<CallPtr> calls;  // that carry queries of it
    bool cancelled = false;
  };

  // By a worker, or where there is no room for the work, at once.
  void InBackground(const std::function<void()>& work);
  void EndCallback(const std::function<void()>& work);
  void Begin(const std::vector<ChunkLookupPtr>& lookups);
  void Send(std::vector<QueryPlace> queries);
  void AskStore(const CallPtr& call);
  void OnStore(const CallPtr& call, const grpc::Status& status);
  void Search(const CallPtr& call);
  void OnSearched(const CallPtr& call, const grpc::Status& status);
  bool RepeatLater(const CallPtr& call, const absl::Status& failure, Rpc rpc);
  void Fail(const CallPtr& call, const absl::Status& failure);
  void Deliver(const CallPtr& call);
  void DeliverFailure(const CallPtr& call, const absl::Status& failure);
  void Complete(const std::vector<ChunkLookupPtr>& lookups);
  void CancelCall(Call& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Wanted(const Call& call) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Explain(const absl::Status& error, std::chrono::milliseconds timeout_ms) const;

  const std::string target_;
  const std::unique_ptr<retriever::v1::RetrieverService::Stub> stub_;
  const ServedModel& model_;
  NeighbourTokens& tokens_;
  StoreView& store_;
  ByteBudget& budget_;

  Mutex mutex_;
  CondVar idle_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<uint64_t, Pending> pending_ ABSL_GUARDED_BY(mutex_);  // by name of the look-up
  int callbacks_ ABSL_GUARDED_BY(mutex_) = 0;                    // of gRPC, to come or not yet at their end

  WorkerPool workers_;  // last: its work uses all of the above
};

}  // namespace retro
