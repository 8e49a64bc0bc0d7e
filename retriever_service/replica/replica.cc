#include "retriever_service/replica/replica.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "retriever_service/replica/store_copy.h"
#include "retriever_service/shard/message_parts.h"
#include "retriever_service/shard/shard_channel.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{20};  // of a primary
constexpr milliseconds kAskPeersEvery{1000};
constexpr milliseconds kAskPeerMax{200};          // for an answer while it leads
constexpr milliseconds kAskPeerAtFirstMax{2000};  // before it does
constexpr milliseconds kAfterError{100};
// The log is kept for a replica that takes a copy so long after each part of it, and after each time that it says it is
// still about to open the store, or pulls what came meanwhile.
constexpr std::chrono::minutes kKeepLog{15};
// And all of it by whoever begins to lead, so that those who opened a copy meanwhile can say so to it too.
constexpr std::chrono::minutes kKeepLogAtFirst{2};
constexpr milliseconds kAfterFailedOpening{1000};
constexpr milliseconds kPullWait{500};  // of a primary that has nothing new
constexpr size_t kPullBytesMax = size_t{4} << 20;

absl::Status Stale(std::string_view what) {
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kStaleEpoch, what);
}

absl::Status Disagree(std::string_view what) {
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kClusterMismatch, what);
}

std::pair<uint64_t, uint64_t> PositionOf(const LocalShard& local) {
  const shardpb::Position position = local.position();
  return {position.epoch(), position.number()};
}

// With each change of a shard that has a position, so that whoever leads it later can tell whether it lost something.
void NotePosition(const LocalShard& local, ShardConfig& own) {
  if (own.position.has_value()) own.position = PositionOf(local);
}

std::chrono::system_clock::time_point In(milliseconds time) { return std::chrono::system_clock::now() + time; }

}  // namespace

absl::Status CheckReplica(const ReplicaOptions& options, const ClusterConfig& config, const std::string& path) {
  if (options.shard >= config.shards.size() || config.shards[options.shard].Find(options.name) == nullptr) {
    return FieldError("--replica", StrCat("the cluster file ", path, " has no replica \"", options.name, "\" of shard ",
                                          options.shard));
  }
  return CheckShardSecurity(config, options.security);
}

absl::StatusOr<std::unique_ptr<Replica>> Replica::Start(const ReplicaOptions& options, ClusterWatch& watch) {
  RETRO_RETURN_IF_ERROR(CheckReplica(options, *watch.Get(), watch.path()));
  std::unique_ptr<Replica> replica(new Replica(options, watch));
  RETRO_RETURN_IF_ERROR(replica->OpenLocal());
  replica->thread_ = std::thread([replica = replica.get()] { replica->Run(); });
  watch.SetListener([replica = replica.get()] { replica->OnClusterFile(); });
  return replica;
}

Replica::Replica(const ReplicaOptions& options, ClusterWatch& watch)
    : local_options_(options.local),
      security_(options.security),
      watch_(watch),
      shard_(watch, options.shard, options.name, options.late_after) {
  const auto config = watch.Get();
  local_options_.replicated = true;
  local_options_.read_only = [&watch, number = options.shard] { return watch.Get()->shards[number].read_only; };
  local_options_.store.cluster = config->cluster;
  local_options_.store.store_id = config->store_id;
  local_options_.store.shard = options.shard;
  local_options_.store.shard_count = static_cast<uint32_t>(config->shards.size());
  shard_.in_sync().Follow(Stale("this replica is starting"));
}

Replica::~Replica() {
  watch_.SetListener({});
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    if (call_ != nullptr) call_->TryCancel();
    wake_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();  // not if the store could not be opened
  shard_.in_sync().Follow(Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown, "this replica is stopping"));
}

// What a copy is of only matters while it is the primary's; other news would have it begun again and again.
void Replica::OnClusterFile() {
  const auto config = watch_.Get();
  const MutexLock lock(mutex_);
  const bool still_wanted = config->shards[shard_.number()].primary == copied_;
  if (call_ != nullptr && !still_wanted) call_->TryCancel();
  wake_.NotifyAll();
}

absl::Status Replica::OpenLocal() {
  RETRO_RETURN_IF_ERROR(FinishStoreCopy(local_options_.store.path));
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<LocalShard> local, LocalShard::Open(local_options_));
  shard_.SetLocal(std::move(local));
  follows_ = true;
  return absl::OkStatus();
}

// ---------------------------------------------------------------- the thread

bool Replica::stopping() const {
  const MutexLock lock(mutex_);
  return stopping_;
}

absl::Status Replica::overtaken() const {
  const MutexLock lock(mutex_);
  return overtaken_;
}

bool Replica::Pause(milliseconds pause) {
  const MutexLock lock(mutex_);
  if (!stopping_) wake_.WaitUntil(mutex_, InSyncSet::Clock::now() + pause);
  return !stopping_;
}

void Replica::Run() {
  milliseconds pause{0};
  while (pause.count() == 0 ? !stopping() : Pause(pause)) {
    const auto config = watch_.Get();
    const bool leads = config->shards[shard_.number()].primary == shard_.name();
    absl::Status status = shard_.local().ok() ? absl::OkStatus() : OpenLocal();  // after a copy, it may have failed
    if (status.ok()) status = leads ? Lead(*config) : Follow(*config);
    if (!status.ok()) {
      led_epoch_ = 0;
      if (leads) shard_.in_sync().Follow(status);
      if (MessageOf(status) != last_error_) {
        spdlog::warn("shard {}, replica {}: {}", shard_.number(), shard_.name(), MessageOf(status));
      }
      if (ReasonOf(status) == Reason::kStaleEpoch) watch_.Reload();
    }
    last_error_ = MessageOf(status);
    pause = leads ? kTick : milliseconds(0);
    if (!status.ok()) pause = kAfterError;
    // A full disk is not asked at every turn, nor is the primary for what would have no room or meet damage.
    const bool refused = ReasonOf(status) == Reason::kReadOnly || ReasonOf(status) == Reason::kStoreDamaged;
    if (!shard_.local().ok() || refused) pause = kAfterFailedOpening;
  }
}

// ---------------------------------------------------------------- as the primary

absl::Status Replica::Lead(const ClusterConfig& config) {
  const ShardConfig& own = config.shards[shard_.number()];
  const auto now = InSyncSet::Clock::now();
  RETRO_RETURN_IF_ERROR(overtaken());
  if (now >= next_asking_) {
    next_asking_ = {};  // after an error, at once again
    RETRO_RETURN_IF_ERROR(AskPeers(config));
    next_asking_ = now + kAskPeersEvery;
  }
  if (own.epoch == kFoundingEpoch) return Found();
  if (led_epoch_ == 0) RETRO_RETURN_IF_ERROR(CheckNothingIsLost(own));
  if (!epoch_is_own_) return BeginOwnEpoch(own);
  if (led_epoch_ != own.epoch) RETRO_RETURN_IF_ERROR(TakeUpEpoch(config));
  const InSyncSet::Proposal proposal = shard_.in_sync().Propose(now);
  if (proposal.empty()) return absl::OkStatus();
  RETRO_RETURN_IF_ERROR(AskPeers(config));  // one that holds up writes may do so because it has another cluster file
  return ChangeInSync(proposal);
}

// The store first: what is found in epoch 1 is new, whatever a crash left of this.
absl::Status Replica::Found() {
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  shardpb::EpochStart start;
  start.set_primary(shard_.name());
  start.add_in_sync(shard_.name());
  follows_ = false;
  RETRO_RETURN_IF_ERROR(local->Lead(kFoundingEpoch + 1, start));
  RETRO_RETURN_IF_ERROR(watch_.Update([&](ClusterConfig& config) -> absl::Status {
    ShardConfig& own = config.shards[shard_.number()];
    if (own.epoch != kFoundingEpoch || own.primary != shard_.name()) return Stale("the shard was founded by another");
    ++own.epoch;
    own.position = PositionOf(*local);
    own.in_sync = {shard_.name()};
    return absl::OkStatus();
  }));
  epoch_is_own_ = true;
  return absl::OkStatus();
}

// After a start, so that positions are never given out twice, even if the store came back older than it was.
absl::Status Replica::BeginOwnEpoch(const ShardConfig& config) {
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  RETRO_RETURN_IF_ERROR(watch_.Update([&](ClusterConfig& newest) -> absl::Status {
    ShardConfig& own = newest.shards[shard_.number()];
    if (own.epoch != config.epoch || own.primary != shard_.name()) return Stale("the cluster file has just changed");
    ++own.epoch;
    NotePosition(*local, own);
    return absl::OkStatus();
  }));
  epoch_is_own_ = true;
  return absl::OkStatus();
}

absl::Status Replica::TakeUpEpoch(const ClusterConfig& config) {
  const ShardConfig& own = config.shards[shard_.number()];
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  shardpb::EpochStart start;
  start.set_primary(own.primary);
  start.mutable_in_sync()->Assign(own.in_sync.begin(), own.in_sync.end());
  if (follows_) {
    local->KeepLog(/*who=*/"", local->store().log_start(), Store::Clock::now() + kKeepLogAtFirst);
  }
  follows_ = false;
  RETRO_RETURN_IF_ERROR(local->Lead(own.epoch, start));
  std::vector<std::string> others = own.in_sync;
  std::erase(others, shard_.name());
  shard_.in_sync().Lead(own.epoch, others, config.min_in_sync);
  led_epoch_ = own.epoch;
  spdlog::info("shard {}: primary {} in epoch {}, {} in sync", shard_.number(), shard_.name(), own.epoch,
               own.in_sync.size());
  return absl::OkStatus();
}

absl::Status Replica::CheckNothingIsLost(const ShardConfig& config) const {
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  const std::pair<uint64_t, uint64_t> has = PositionOf(*local), had = config.position.value_or(has);
  if (has.second == 0) {
    return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                 StrCat("the store of shard ", shard_.number(),
                        "'s primary is empty, and the shard is not new: promote "
                        "another replica, from which this one can take a copy"));
  }
  if (has >= had) return absl::OkStatus();
  return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
               StrCat("the store of shard ", shard_.number(), "'s primary ", shard_.name(), " ends at change ",
                      has.first, "/", has.second, " and had ", had.first, "/", had.second,
                      " before: promote a replica that has it, or this one if there is none, and what is missing is "
                      "lost"));
}

absl::Status Replica::OvertakenBy(const std::string& peer) const {
  return Error(
      absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
      StrCat("replica ", peer, " is in sync and has changes that its primary ", shard_.name(), " lost: promote it"));
}

absl::Status Replica::AskPeers(const ClusterConfig& config) {
  const ShardConfig& own = config.shards[shard_.number()];
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  for (const ReplicaConfig& peer : own.replicas) {
    if (peer.name == shard_.name()) continue;
    grpc::ClientContext context;
    context.set_deadline(In(led_epoch_ == 0 ? kAskPeerAtFirstMax : kAskPeerMax));
    shardpb::GetShardInfoResponse info;
    if (!StubOf(peer.address).GetShardInfo(&context, {}, &info).ok()) continue;
    const std::string who = StrCat("replica ", peer.name, " at ", peer.address);
    if (info.store_id() != config.store_id || info.shard() != shard_.number() || info.replica() != peer.name) {
      return Disagree(StrCat(who, " says that it is replica ", info.replica(), " of shard ", info.shard(),
                             ": the cluster files of the two disagree"));
    }
    if (info.cluster_version() == config.version && info.cluster_fingerprint() != config.Fingerprint()) {
      return Disagree(StrCat(who, " has read another cluster file of version ", config.version, " than this one"));
    }
    if (info.role() == shardpb::REPLICA_ROLE_PRIMARY && info.epoch() >= own.epoch && own.epoch != kFoundingEpoch) {
      return Disagree(StrCat(who, " takes itself for the primary of epoch ", info.epoch(), ", as this one does"));
    }
    if (!own.IsInSync(peer.name)) continue;
    // Before it could be dropped for not keeping up, and what it has with it. It may have what is not searchable here
    // yet: what counts is what is on disk, read after the peer has answered.
    RETRO_ASSIGN_OR_RETURN(const shardpb::Position last, local->store().ReadLastPosition());
    if (IsBefore(last, info.position())) return OvertakenBy(peer.name);
  }
  return absl::OkStatus();
}

absl::Status Replica::ChangeInSync(const InSyncSet::Proposal& proposal) {
  for (const std::string& name : proposal.drop) {
    spdlog::warn("shard {}: {} holds up writes or has lost its store, and is no longer in sync", shard_.number(), name);
  }
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  return watch_.Update([&](ClusterConfig& config) -> absl::Status {
    ShardConfig& own = config.shards[shard_.number()];
    if (own.epoch != led_epoch_ || own.primary != shard_.name()) return Stale("another replica was promoted");
    ++own.epoch;
    NotePosition(*local, own);
    for (const std::string& name : proposal.drop) std::erase(own.in_sync, name);
    for (const std::string& name : proposal.add) {
      if (own.Find(name) != nullptr && !own.IsInSync(name)) own.in_sync.push_back(name);
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<uint64_t> Replica::Promote() {
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  const bool empty = local->position().number() == 0;
  uint64_t epoch = 0;
  RETRO_RETURN_IF_ERROR(watch_.Update([&](ClusterConfig& config) -> absl::Status {
    ShardConfig& own = config.shards[shard_.number()];
    if (empty || !own.IsInSync(shard_.name())) {
      return Error(absl::StatusCode::kFailedPrecondition, Reason::kBehindLog,
                   StrCat("replica ", shard_.name(), " of shard ", shard_.number(),
                          " is not in sync and may lack what "
                          "was acknowledged: promote one that is, or bring the primary back"));
    }
    own.primary = shard_.name();
    own.in_sync = {shard_.name()};
    NotePosition(*local, own);
    epoch = ++own.epoch;
    return absl::OkStatus();
  }));
  return epoch;
}

absl::Status Replica::SetReadOnly(bool read_only) {
  return watch_.Update([&](ClusterConfig& config) {
    config.shards[shard_.number()].read_only = read_only;
    return absl::OkStatus();
  });
}

// ---------------------------------------------------------------- what others ask of a primary

absl::Status Replica::Pull(const shardpb::PullChangesRequest& request, const CallContext&, const ChangesSink& send) {
  const uint64_t epoch = shard_.in_sync().epoch();
  if (epoch == 0 || request.epoch() != epoch) {
    return Stale(StrCat("the shard is in epoch ", epoch, " here, the replica in ", request.epoch()));
  }
  const auto config = watch_.Get();
  const ShardConfig& own = config->shards[shard_.number()];
  if (own.Find(request.replica()) == nullptr) {
    return Disagree(StrCat("the primary's cluster file has no replica \"", request.replica(), "\""));
  }
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  if (!shard_.in_sync().Pulled(request.replica(), request.after(), local->position())) {
    return Stale("the replica was in sync and has lost changes: it is dropped");
  }
  local->KeepLogOnFrom(request.replica(), request.after(), Store::Clock::now() + kKeepLog);
  bool news = false;
  absl::Status status =
      local->ReadChanges(request.after(), kPullBytesMax, request.takes_parts() ? kPartBytesMax : SIZE_MAX,
                         InSyncSet::Clock::now() + kPullWait, [&](shardpb::PullChangesResponse part) -> absl::Status {
                           RETRO_RETURN_IF_ERROR(local->CheckOpen());
                           news = true;
                           *part.mutable_newest() = local->position();
                           RETRO_RETURN_IF_ERROR(send(part));
                           shard_.in_sync().Sent(request.replica());
                           return absl::OkStatus();
                         });
  const bool trimmed = request.after().number() < local->store().log_start().number();
  if (ReasonOf(status) == Reason::kBehindLog && own.IsInSync(request.replica()) && !trimmed) {
    const MutexLock lock(mutex_);
    overtaken_ = OvertakenBy(request.replica());
  }
  if (news || !status.ok()) return status;
  shardpb::PullChangesResponse nothing;
  *nothing.mutable_newest() = local->position();
  return send(nothing);
}

absl::StatusOr<shardpb::KeepLogResponse> Replica::KeepLog(const shardpb::KeepLogRequest& request, const CallContext&) {
  if (watch_.Get()->shards[shard_.number()].Find(request.replica()) == nullptr) {
    return Disagree(StrCat("this replica's cluster file has no replica \"", request.replica(), "\""));
  }
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  local->KeepLog(request.replica(), request.from(), Store::Clock::now() + kKeepLog);
  return shardpb::KeepLogResponse();
}

absl::Status Replica::SendSnapshot(const shardpb::FetchSnapshotRequest& request, const CallContext& context,
                                   const SnapshotSink& send) {
  RETRO_ASSIGN_OR_RETURN(const auto local, shard_.local());
  spdlog::info("shard {}: sending a copy of the store to {}", shard_.number(), request.replica());
  const shardpb::Position position = local->position();
  const auto keep_log = [&] { local->KeepLog(request.replica(), position, Store::Clock::now() + kKeepLog); };
  keep_log();
  return SendStoreCopy(*local, local_options_.store.path, request.takes_index(),
                       [&](const shardpb::FetchSnapshotResponse& part) {
                         RETRO_RETURN_IF_ERROR(context.Check());
                         RETRO_RETURN_IF_ERROR(local->CheckOpen());
                         keep_log();
                         return send(part);
                       });
}

}  // namespace retro
