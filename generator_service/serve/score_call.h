// One Score call: its items go through the engine one after the other, each as a generation of no tokens. The reply's
// retrieval events are bounded, all items together.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/byte_budget.h"
#include "common/base/sync.h"
#include "common/rpc/unary.h"
#include "generator_service/engine/engine.h"
#include "generator_service/serve/generator_metrics.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

// Lives until both gRPC and the engine have let go of it.
class ScoreCall : public grpc::ServerUnaryReactor, public EventSink {
 public:
  static constexpr size_t kRetrievalBytesMax = 16 << 20;

  // `engine` and `metrics` must outlive the call, which holds what `held` holds; `reply` lives as long as gRPC's part
  // of it.
  static std::shared_ptr<ScoreCall> Create(CallRecord record, HeldBytes held, Engine& engine, GeneratorMetrics& metrics,
                                           grpc::ByteBuffer* reply);

  void Start(absl::StatusOr<std::vector<GenerationRequest>> requests);

  // Of gRPC.
  void OnCancel() override;
  void OnDone() override;

  // Of the engine.
  void OnToken(TokenOutput output) override;
  void OnChunk(ChunkOutput output) override;
  void OnFinish(FinishOutput output) override;
  void OnError(absl::Status status) override;
  bool HasRoom() const override { return true; }

 private:
  ScoreCall(CallRecord record, HeldBytes held, Engine& engine, GeneratorMetrics& metrics, grpc::ByteBuffer* reply)
      : record_(std::move(record)), held_(std::move(held)), engine_(engine), metrics_(metrics), reply_(reply) {}

  void SubmitNext();
  void CancelSession();
  void End(const absl::Status& status) { Finish(record_.Finish(status)); }
  void Answer();

  const CallRecord record_;
  HeldBytes held_;  // the request's, then the reply's too
  Engine& engine_;
  GeneratorMetrics& metrics_;
  grpc::ByteBuffer* const reply_;
  generator::v1::ScoreResponse response_;
  std::shared_ptr<ScoreCall> self_;  // gRPC's hold, until OnDone
  std::vector<GenerationRequest> requests_;
  size_t next_ = 0;
  // Engine's thread.
  size_t retrieval_bytes_ = 0;  // of the events in the reply
  bool too_large_ = false;

  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<uint64_t> session_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace retro
