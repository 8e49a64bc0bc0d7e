// One Generate call: between gRPC's reactor, which writes one message at a time, and the engine, which must never wait
// for it. Events queue here; past a bound the sequence pauses until the reader has caught up. The bytes that their
// neighbours hold (see ShownNeighbours) are given back when they are written.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "common/base/byte_budget.h"
#include "common/base/sync.h"
#include "common/rpc/unary.h"
#include "generator_service/engine/engine.h"
#include "generator_service/serve/generator_metrics.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

// Lives until both gRPC and the engine have let go of it.
class GenerateStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public EventSink {
 public:
  static constexpr size_t kEventsQueuedMax = 32;

  // `context` is the call's own; `engine` and `metrics` must outlive the call, which holds what `held` holds. Once the
  // generation has ended and nothing of the rest is read for stall_ms_max, the call ends too.
  static std::shared_ptr<GenerateStream> Create(grpc::CallbackServerContext& context, CallRecord record, HeldBytes held,
                                                Engine& engine, GeneratorMetrics& metrics,
                                                std::chrono::milliseconds stall_ms_max);

  // Hands the request to the engine, or ends the call with the error.
  void Start(absl::StatusOr<GenerationRequest> request);

  // Of gRPC.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Of the engine.
  void OnWaited(Clock::duration time) override;
  void OnToken(TokenOutput output) override;
  void OnChunk(ChunkOutput output) override;
  void OnFinish(FinishOutput output) override;
  void OnError(absl::Status status) override;
  bool HasRoom() const override;

 private:
  struct Event {
    grpc::ByteBuffer bytes;
    std::shared_ptr<const HeldBytes> held;  // may be null
  };

  GenerateStream(grpc::CallbackServerContext& context, CallRecord record, HeldBytes held, Engine& engine,
                 GeneratorMetrics& metrics, std::chrono::milliseconds stall_ms_max)
      : context_(context),
        record_(std::move(record)),
        held_(std::move(held)),
        engine_(engine),
        metrics_(metrics),
        stall_ms_max_(stall_ms_max) {}

  void Push(const generator::v1::GenerateResponse& event, std::shared_ptr<const HeldBytes> held = nullptr);
  void End(const absl::Status& status);
  void Pump();
  void WatchReader(const std::shared_ptr<GenerateStream>& self);
  void OnReaderDue(const std::shared_ptr<GenerateStream>& self, int64_t writes_before);

  grpc::CallbackServerContext& context_;  // valid until OnDone
  const CallRecord record_;
  std::optional<HeldBytes> held_;  // as all events, until OnDone: an alarm may keep the stream beyond the budget's end
  Engine& engine_;
  GeneratorMetrics& metrics_;
  const std::chrono::milliseconds stall_ms_max_;
  std::shared_ptr<GenerateStream> self_;  // gRPC's hold, until OnDone

  // Of the request; set before the engine knows of it.
  uint64_t seed_ = 0;
  int64_t offset_ = 0;
  Clock::time_point arrival_;
  std::optional<Clock::time_point> last_token_;  // engine's thread

  mutable Mutex mutex_;
  std::deque<Event> queue_ ABSL_GUARDED_BY(mutex_);
  Event writing_;  // gRPC's while a write is under way
  bool write_under_way_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;  // the reader is gone: events are dropped
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t writes_ ABSL_GUARDED_BY(mutex_) = 0;    // that are done
  bool cutting_ ABSL_GUARDED_BY(mutex_) = false;  // the context is in use: the call must not finish meanwhile
  std::unique_ptr<grpc::Alarm> reader_due_ ABSL_GUARDED_BY(mutex_);  // once the generation has ended
  std::optional<uint64_t> session_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace retro
