// The half of Replica that follows a primary.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/repeating.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "retriever_service/replica/replica.h"
#include "retriever_service/replica/store_copy.h"
#include "retriever_service/shard/message_parts.h"
#include "retriever_service/shard/shard_channel.h"

namespace retro {
namespace {

constexpr std::chrono::minutes kPullMax{5};  // for all of one answer: the largest change over a slow line
constexpr std::chrono::hours kCopyMax{24};
// Between copies of which none brought this replica in sync; each costs the primary a reading of its whole store.
constexpr std::chrono::milliseconds kCopyPauseMin{1000};
constexpr std::chrono::milliseconds kCopyPauseMax{10 * 60 * 1000};
// While it opens the store that it has copied.
constexpr std::chrono::milliseconds kAskToKeepLogEvery{30'000};
constexpr std::chrono::milliseconds kAskToKeepLogMax{2000};

}  // namespace

shardpb::ShardService::Stub& Replica::StubOf(const std::string& address) {
  auto& stub = stubs_[address];
  if (stub == nullptr) stub = shardpb::ShardService::NewStub(MakeShardChannel(address, security_));
  return *stub;
}

void Replica::BeginCall(grpc::ClientContext& context, const std::string& copied) {
  const MutexLock lock(mutex_);
  call_ = &context;
  copied_ = copied;
  if (stopping_) context.TryCancel();
}

void Replica::EndCall() {
  const MutexLock lock(mutex_);
  call_ = nullptr;
}

absl::Status Replica::Follow(const ClusterConfig& config) {
  led_epoch_ = 0;
  next_asking_ = {};
  epoch_is_own_ = true;  // whoever makes it the primary begins one
  {
    const MutexLock lock(mutex_);
    overtaken_ = absl::OkStatus();
  }
  shard_.in_sync().Follow(Error(absl::StatusCode::kFailedPrecondition, Reason::kStaleEpoch,
                                StrCat("replica ", shard_.name(), " is not the primary of shard ", shard_.number(),
                                       ": read the cluster file again")));
  if (!follows_) {
    RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
    RETRO_RETURN_IF_ERROR(local->Follow());
    follows_ = true;
  }
  const ShardConfig& own = config.shards[shard_.number()];
  if (own.Find(shard_.name()) == nullptr) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kClusterMismatch,
                 StrCat("the cluster file no longer has replica \"", shard_.name(), "\" of shard ", shard_.number()));
  }
  if (own.IsInSync(shard_.name())) copy_pause_ = {};
  absl::Status status = PullFrom(own);
  if (ReasonOf(status) != Reason::kBehindLog) return status;
  // One that is in sync has nothing to catch up with; its primary finds that it lost something, and drops it.
  if (own.IsInSync(shard_.name())) return status;
  if (InSyncSet::Clock::now() < next_copy_) return status;
  copy_pause_ = std::clamp(2 * copy_pause_, kCopyPauseMin, kCopyPauseMax);
  status = TakeCopy(own);
  next_copy_ = InSyncSet::Clock::now() + copy_pause_;
  return status;
}

absl::Status Replica::PullFrom(const ShardConfig& config) {
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  shardpb::PullChangesRequest request;
  *request.mutable_after() = local->position();
  request.set_replica(shard_.name());
  request.set_epoch(config.epoch);
  request.set_takes_parts(true);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPullMax);
  BeginCall(context);
  auto reader = StubOf(config.Find(config.primary)->address).PullChanges(&context, request);
  std::vector<shardpb::PullChangesResponse> changes;
  shardpb::PullChangesResponse part;
  while (reader->Read(&part)) AddPart(std::exchange(part, {}), changes);
  const absl::Status status = FromGrpcStatus(reader->Finish());
  EndCall();
  if (status.code() == absl::StatusCode::kCancelled) return absl::OkStatus();  // the cluster file changed
  RETRO_RETURN_IF_ERROR(status);
  return changes.empty() ? absl::OkStatus() : local->Replay(changes);
}

absl::Status Replica::TakeCopy(const ShardConfig& config) {
  spdlog::info("shard {}: {} takes a copy of {}'s store", shard_.number(), shard_.name(), config.primary);
  const std::string& data = local_options_.store.path;
  RETRO_ASSIGN_OR_RETURN(StoreCopyReceiver receiver, StoreCopyReceiver::Start(data));
  RETRO_ASSIGN_OR_RETURN(const shardpb::Position copied, ReceiveCopy(config, receiver));
  const Repeating keeping(kAskToKeepLogEvery, [this, &copied, end = InSyncSet::Clock::now() + kCopyMax] {
    if (InSyncSet::Clock::now() < end) AskToKeepLog(copied);
  });
  shard_.CloseLocal();
  RETRO_RETURN_IF_ERROR(receiver.Install());  // whatever fails from here on, Run opens what there is
  return OpenLocal();
}

absl::StatusOr<shardpb::Position> Replica::ReceiveCopy(const ShardConfig& config, StoreCopyReceiver& receiver) {
  shardpb::FetchSnapshotRequest request;
  request.set_replica(shard_.name());
  request.set_takes_index(true);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCopyMax);
  BeginCall(context, config.primary);
  auto reader = StubOf(config.Find(config.primary)->address).FetchSnapshot(&context, request);
  shardpb::FetchSnapshotResponse part;
  shardpb::Position position;
  absl::Status taken;
  while (taken.ok() && reader->Read(&part)) {
    taken = receiver.Take(part);
    if (part.has_position()) position = part.position();
    part.Clear();
  }
  if (!taken.ok()) context.TryCancel();
  const absl::Status sent = FromGrpcStatus(reader->Finish());
  EndCall();
  RETRO_RETURN_IF_ERROR(taken);
  RETRO_RETURN_IF_ERROR(sent);
  return position;
}

// By a channel of its own each time: whoever is the primary may change meanwhile, and stubs_ are the thread's. One of
// an older version does not know the call and keeps the log for as long as it does of itself.
void Replica::AskToKeepLog(const shardpb::Position& from) const {
  const auto config = watch_.Get();
  const ShardConfig& own = config->shards[shard_.number()];
  const auto stub = shardpb::ShardService::NewStub(MakeShardChannel(own.Find(own.primary)->address, security_));
  shardpb::KeepLogRequest request;
  request.set_replica(shard_.name());
  *request.mutable_from() = from;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAskToKeepLogMax);
  shardpb::KeepLogResponse response;
  const grpc::Status status = stub->KeepLog(&context, request, &response);
  if (!status.ok()) spdlog::debug("the primary was not told to keep its log: {}", status.error_message());
}

}  // namespace retro
