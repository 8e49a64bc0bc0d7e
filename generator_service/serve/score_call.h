// One Score call: its items go through the engine as generations of no tokens. Some of them are under way at once, so
// that the look-ups of one go on while another is computed, as long as nobody else has to wait for a place; the others
// follow as those end. The reply's retrieval events are bounded, all items together.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/byte_budget.h"
#include "common/base/sync.h"
#include "common/rpc/peer_watch.h"
#include "common/rpc/unary.h"
#include "generator_service/engine/engine.h"
#include "generator_service/serve/generator_metrics.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

// Lives until both gRPC and the engine have let go of it.
class ScoreCall : public grpc::ServerUnaryReactor {
 public:
  static constexpr size_t kRetrievalBytesMax = 16 << 20;
  static constexpr size_t kItemsAtOnceMax = 4;

  // `context` is the call's own, and `reply` lives as long as gRPC's part of it; all else must outlive the call, which
  // holds what `held` holds. `peers` ends it once nobody takes its answer.
  static std::shared_ptr<ScoreCall> Create(grpc::CallbackServerContext& context, CallRecord record, HeldBytes held,
                                           Engine& engine, GeneratorMetrics& metrics, PeerWatch& peers,
                                           grpc::ByteBuffer* reply);

  void Start(absl::StatusOr<std::vector<GenerationRequest>> requests);

  // Of gRPC.
  void OnCancel() override;
  void OnDone() override;

 private:
  class Item;

  ScoreCall(grpc::CallbackServerContext& context, CallRecord record, HeldBytes held, Engine& engine,
            GeneratorMetrics& metrics, PeerWatch& peers, grpc::ByteBuffer* reply)
      : context_(context),
        record_(std::move(record)),
        held_(std::move(held)),
        engine_(engine),
        metrics_(metrics),
        peers_(peers),
        reply_(reply) {}

  absl::Status SubmitNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SubmitMore();
  void OnItemEnd(size_t item);
  void Fail(const absl::Status& status);
  void Answer();
  void End(const absl::Status& status);

  grpc::CallbackServerContext& context_;  // valid until OnDone
  const CallRecord record_;
  HeldBytes held_;  // the request's, the events' as they come, then the reply's too
  Engine& engine_;
  GeneratorMetrics& metrics_;
  PeerWatch& peers_;
  grpc::ByteBuffer* const reply_;
  PeerWatch::Entry sent_;            // the answer
  std::shared_ptr<ScoreCall> self_;  // gRPC's hold, until OnDone

  // Engine's thread, once an item is submitted.
  generator::v1::ScoreResponse response_;  // with a result for each item from the start
  size_t retrieval_bytes_ = 0;             // of the events in it

  Mutex mutex_;
  std::vector<GenerationRequest> requests_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;                       // of them: the first that was not submitted
  std::map<size_t, uint64_t> under_way_ ABSL_GUARDED_BY(mutex_);  // items, and their sessions
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace retro
