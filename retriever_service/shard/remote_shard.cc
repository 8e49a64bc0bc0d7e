#include "retriever_service/shard/remote_shard.h"

#include <google/protobuf/util/time_util.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <functional>
#include <list>
#include <optional>
#include <tuple>
#include <utility>

#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/shard/message_parts.h"

namespace retro {
namespace {

using std::chrono::milliseconds;
using Async = shardpb::ShardService::StubInterface::async_interface;

// A second replica is asked when an answer takes longer than 19 of 20 took lately.
constexpr double kHedgeQuantile = 0.95;
constexpr milliseconds kHedgeAfterMin{5};
constexpr milliseconds kHedgeAfterMax{1000};
constexpr milliseconds kHedgeAfterFirst{100};  // before anything is learnt
constexpr uint64_t kLearnEvery = 16;           // answers
constexpr int kOvertakenMax = 1;               // by chance; a second time, it is asked last
constexpr milliseconds kStatsHedgeAfter{500};  // half of the time that a scrape has

constexpr milliseconds kAskEvery{200};

constexpr milliseconds kNewPrimaryWaitMax{2000};  // for one that is named and does not act yet
constexpr milliseconds kNewPrimaryPause{20};

constexpr char kUsableGauge[] = "retro_replica_usable";
constexpr char kInSyncGauge[] = "retro_replica_in_sync";
constexpr char kCallsGauge[] = "retro_replica_calls";
constexpr char kLagGauge[] = "retro_replica_lag_changes";
constexpr const char* kReplicaGauges[] = {kUsableGauge, kInSyncGauge, kCallsGauge, kLagGauge};

// Sends a request in parts; deletes itself at the end.
class PartsSender final : public grpc::ClientWriteReactor<shardpb::WriteRequest> {
 public:
  // `request` must outlive the call of `done`.
  PartsSender(const shardpb::WriteRequest& request, uint64_t epoch, std::function<void(grpc::Status)> done)
      : parts_(request, epoch), done_(std::move(done)) {}

  void Start(Async& async, grpc::ClientContext* client, shardpb::WriteResponse* response) {
    async.WriteInParts(client, response, this);
    SendNext();
    BeginUnseenReads();
    StartCall();  // sends the first part
    EndUnseenReads();
  }
  void OnWriteDone(bool ok) override {
    TakeOver(this);
    if (ok) SendNext();  // else the end is near
  }
  void OnDone(const grpc::Status& status) override {
    TakeOver(this);
    done_(status);
    delete this;
  }

 private:
  void SendNext() {
    part_ = parts_.Next();
    HandOver(this);
    if (part_.has_value()) {
      BeginUnseenReads();
      StartWrite(&*part_);
      EndUnseenReads();
    } else {
      StartWritesDone();
    }
  }

  WriteParts parts_;
  std::optional<shardpb::WriteRequest> part_;
  const std::function<void(grpc::Status)> done_;
};

}  // namespace

RemoteShard::RemoteShard(uint32_t number, ClusterView cluster, Metrics& metrics)
    : number_(number),
      cluster_(std::move(cluster)),
      metrics_(metrics),
      hedges_(metrics.Counter("retro_shard_hedges_total", "Reads sent to another replica as the first took long.",
                              {{"shard", std::to_string(number)}})),
      hedge_after_(kHedgeAfterFirst),
      thread_([this] { Run(); }) {}

RemoteShard::~RemoteShard() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
}

// ---------------------------------------------------------------- choosing

RemoteShard::ReplicaPtr RemoteShard::Find(const ReplicaConfig& config) const {
  const MutexLock lock(mutex_);
  ReplicaPtr& replica = replicas_[{config.name, config.address}];
  if (replica == nullptr) replica = std::make_shared<RemoteReplica>(config.name, config.address, cluster_.security);
  return replica;
}

std::vector<RemoteShard::ReplicaPtr> RemoteShard::Replicas(const ShardConfig& config) const {
  std::vector<ReplicaPtr> replicas;
  replicas.reserve(config.replicas.size());
  for (const ReplicaConfig& replica : config.replicas) replicas.push_back(Find(replica));
  return replicas;
}

absl::StatusOr<std::vector<RemoteShard::ReplicaPtr>> RemoteShard::Readers() const {
  const auto config = cluster_.get();
  const ShardConfig& own = config->shards[number_];
  struct Choice {
    bool away;
    bool silent;
    int calls;
    size_t turn;
    ReplicaPtr replica;
  };
  std::vector<Choice> choices;
  absl::Status refusal;
  const size_t turn = turn_++;
  for (size_t i = 0; i < own.replicas.size(); ++i) {
    if (!own.IsInSync(own.replicas[i].name)) continue;
    ReplicaPtr replica = Find(own.replicas[i]);
    const RemoteReplica::State state = replica->state();
    if (state == RemoteReplica::State::kRefused) {
      refusal = replica->why();
      continue;
    }
    choices.push_back({state == RemoteReplica::State::kAway, replica->overtaken > kOvertakenMax, replica->calls.load(),
                       (i + turn) % own.replicas.size(), std::move(replica)});
  }
  if (choices.empty()) {
    if (!refusal.ok()) return refusal;
    return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                 StrCat("shard ", number_, " has no replica in sync yet: is its primary running?"));
  }
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
    return std::tie(a.away, a.silent, a.calls, a.turn) < std::tie(b.away, b.silent, b.calls, b.turn);
  });
  std::vector<ReplicaPtr> readers;
  readers.reserve(choices.size());
  for (Choice& choice : choices) readers.push_back(std::move(choice.replica));
  const auto silent = [](const ReplicaPtr& reader) { return reader->IsSilent(); };
  if (std::all_of(readers.begin(), readers.end(), silent)) return NobodyAnswers(readers);  // Ask() finds them again
  return readers;
}

// Before a change of an epoch is made the cluster file has that epoch. If a token is of a later one it was made up, or
// the epoch has just begun and the file was not read since: whatever is there is answered, but no thread waits long.
absl::Status RemoteShard::CheckWait(const shardpb::ReadBarrier& barrier) const {
  const uint64_t epoch = cluster_.get()->shards[number_].epoch;
  const int64_t max_wait_ms = google::protobuf::util::TimeUtil::DurationToMilliseconds(barrier.max_wait());
  if (max_wait_ms <= kShortWait.count() || barrier.position().epoch() <= epoch) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable, Reason::kBehindToken,
               StrCat("shard ", number_, " is in epoch ", epoch, ", the consistency token in epoch ",
                      barrier.position().epoch(), ", which the cluster file does not have: try again"));
}

RemoteShard::Clock::duration RemoteShard::HedgeAfter() const {
  const MutexLock lock(mutex_);
  return hedge_after_;
}

template <typename Response, typename Request, typename Method>
absl::StatusOr<Response> RemoteShard::Read(const Request& request, const CallContext& context, Method method) {
  if constexpr (requires { request.barrier(); }) RETRO_RETURN_IF_ERROR(CheckWait(request.barrier()));
  RETRO_ASSIGN_OR_RETURN(auto readers, Readers());
  if (readers.front()->state() == RemoteReplica::State::kUsable) {
    return ReadFrom<Response>(std::move(readers), HedgeAfter(), request, context, method);
  }
  // None answered when it was last asked: they get as long as then, whatever the caller could wait.
  CallContext brief = context;
  brief.deadline = std::min(context.deadline, Clock::now() + RemoteReplica::kAnswerMax);
  absl::StatusOr<Response> answer = ReadFrom<Response>(readers, HedgeAfter(), request, brief, method);
  if (ReasonOf(answer.status()) != Reason::kCallerGone || !context.Check().ok()) return answer;
  return NobodyAnswers(readers);
}

template <typename Response, typename Request, typename Method>
absl::StatusOr<Response> RemoteShard::ReadFrom(std::vector<ReplicaPtr> readers, Clock::duration hedge_after,
                                               const Request& request, const CallContext& context, Method method) {
  ReplicaCall<Response> call(std::move(readers), Effect::kRead, hedge_after, *this,
                             [&](RemoteReplica& replica, auto* client, auto* response, auto done) {
                               (static_cast<Async*>(replica.stub().async())->*method)(client, &request, response,
                                                                                      std::move(done));
                             });
  absl::StatusOr<Response> answer = call.Run(context);
  if (answer.ok()) RETRO_RETURN_IF_ERROR(context.Hold(answer->ByteSizeLong()));
  return answer;
}

// Who is told that its epoch is old, or that its primary is none or about to stop, looks at the cluster file again: of
// two that change places, one was just named and may need a moment to act.
template <typename Response, typename Begin>
absl::StatusOr<Response> RemoteShard::Change(const CallContext& context, const Begin& begin) {
  const Clock::time_point give_up = Clock::now() + kNewPrimaryWaitMax;
  while (true) {
    const auto config = cluster_.get();
    const ShardConfig& own = config->shards[number_];
    const ReplicaPtr primary = Find(*own.Find(own.primary));
    if (primary->state() == RemoteReplica::State::kRefused) return primary->why();
    if (!primary->Connects()) {
      return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                   StrCat("nothing was done: ", Where(*primary),
                          ", the primary, cannot be reached; wait for it, or "
                          "promote another"));
    }
    if (primary->IsSilent()) {  // whoever waited for it would keep others' changes, to other shards, from a thread
      return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                   StrCat("nothing was done: ", Where(*primary),
                          ", the primary, does not answer; wait for it, or promote another"));
    }
    ReplicaCall<Response> call({primary}, Effect::kChange, kHedgeAfterMax, *this,
                               [&](RemoteReplica& replica, auto* client, auto* response, auto done) {
                                 begin(*replica.stub().async(), client, own.epoch, response, std::move(done));
                               });
    absl::StatusOr<Response> answer = call.Run(context);
    const auto reason = ReasonOf(answer.status());
    if (answer.ok() || (reason != Reason::kStaleEpoch && reason != Reason::kShuttingDown)) return answer;
    if (Clock::now() >= give_up) {  // of no epoch that the caller knows, and worth another try
      return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                   StrCat("nothing was done: ", Where(*primary), ", the primary, does not act as it now (",
                          MessageOf(answer.status()), "): try again"));
    }
    cluster_.reload();
    std::this_thread::sleep_for(kNewPrimaryPause);
  }
}

// ---------------------------------------------------------------- as Shard

absl::StatusOr<shardpb::SearchResponse> RemoteShard::Search(const shardpb::SearchRequest& request,
                                                            const CallContext& context) {
  using Method = void (Async::*)(grpc::ClientContext*, const shardpb::SearchRequest*, shardpb::SearchResponse*,
                                 std::function<void(grpc::Status)>);
  return Read<shardpb::SearchResponse>(request, context, static_cast<Method>(&Async::Search));
}

absl::StatusOr<shardpb::WriteResponse> RemoteShard::Write(const shardpb::WriteRequest& request,
                                                          const CallContext& context) {
  if (request.ByteSizeLong() > kPartBytesMax) {  // of which a whole copy would be too much
    return Change<shardpb::WriteResponse>(
        context, [&](Async& async, auto* client, uint64_t epoch, auto* response, auto done) {
          (new PartsSender(request, epoch, std::move(done)))->Start(async, client, response);
        });
  }
  shardpb::WriteRequest sent = request;
  return Change<shardpb::WriteResponse>(context,
                                        [&](Async& async, auto* client, uint64_t epoch, auto* response, auto done) {
                                          sent.set_epoch(epoch);
                                          async.Write(client, &sent, response, std::move(done));
                                        });
}

absl::StatusOr<shardpb::DeleteResponse> RemoteShard::Delete(const shardpb::DeleteRequest& request,
                                                            const CallContext& context) {
  using Method = void (Async::*)(grpc::ClientContext*, const shardpb::DeleteRequest*, shardpb::DeleteResponse*,
                                 std::function<void(grpc::Status)>);
  if (request.dry_run()) return Read<shardpb::DeleteResponse>(request, context, static_cast<Method>(&Async::Delete));
  shardpb::DeleteRequest sent = request;
  return Change<shardpb::DeleteResponse>(context,
                                         [&](Async& async, auto* client, uint64_t epoch, auto* response, auto done) {
                                           sent.set_epoch(epoch);
                                           async.Delete(client, &sent, response, std::move(done));
                                         });
}

absl::StatusOr<shardpb::CreateCollectionResponse> RemoteShard::CreateCollection(
    const shardpb::CreateCollectionRequest& request, const CallContext& context) {
  shardpb::CreateCollectionRequest sent = request;
  return Change<shardpb::CreateCollectionResponse>(
      context, [&](Async& async, auto* client, uint64_t epoch, auto* response, auto done) {
        sent.set_epoch(epoch);
        async.CreateCollection(client, &sent, response, std::move(done));
      });
}

absl::StatusOr<shardpb::DropCollectionResponse> RemoteShard::DropCollection(
    const shardpb::DropCollectionRequest& request, const CallContext& context) {
  shardpb::DropCollectionRequest sent = request;
  return Change<shardpb::DropCollectionResponse>(
      context, [&](Async& async, auto* client, uint64_t epoch, auto* response, auto done) {
        sent.set_epoch(epoch);
        async.DropCollection(client, &sent, response, std::move(done));
      });
}

absl::StatusOr<shardpb::GetDocumentResponse> RemoteShard::GetDocument(const shardpb::GetDocumentRequest& request,
                                                                      const CallContext& context) {
  using Method = void (Async::*)(grpc::ClientContext*, const shardpb::GetDocumentRequest*,
                                 shardpb::GetDocumentResponse*, std::function<void(grpc::Status)>);
  return Read<shardpb::GetDocumentResponse>(request, context, static_cast<Method>(&Async::GetDocument));
}

absl::StatusOr<shardpb::GetChunksResponse> RemoteShard::GetChunks(const shardpb::GetChunksRequest& request,
                                                                  const CallContext& context) {
  using Method = void (Async::*)(grpc::ClientContext*, const shardpb::GetChunksRequest*, shardpb::GetChunksResponse*,
                                 std::function<void(grpc::Status)>);
  return Read<shardpb::GetChunksResponse>(request, context, static_cast<Method>(&Async::GetChunks));
}

absl::StatusOr<shardpb::ListDocumentsResponse> RemoteShard::ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                                          const CallContext& context) {
  using Method = void (Async::*)(grpc::ClientContext*, const shardpb::ListDocumentsRequest*,
                                 shardpb::ListDocumentsResponse*, std::function<void(grpc::Status)>);
  return Read<shardpb::ListDocumentsResponse>(request, context, static_cast<Method>(&Async::ListDocuments));
}

// The primary's, if it answers: it alone knows whether writes are refused.
absl::StatusOr<shardpb::StatsResponse> RemoteShard::Stats(const shardpb::StatsRequest& request,
                                                          const CallContext& context) {
  using Method = void (Async::*)(grpc::ClientContext*, const shardpb::StatsRequest*, shardpb::StatsResponse*,
                                 std::function<void(grpc::Status)>);
  RETRO_ASSIGN_OR_RETURN(auto readers, Readers());
  const auto config = cluster_.get();
  const std::string& primary = config->shards[number_].primary;
  std::stable_partition(readers.begin(), readers.end(), [&](const ReplicaPtr& reader) {
    return reader->name() == primary && reader->state() == RemoteReplica::State::kUsable;
  });
  return ReadFrom<shardpb::StatsResponse>(std::move(readers), kStatsHedgeAfter, request, context,
                                          static_cast<Method>(&Async::Stats));
}

absl::StatusOr<shardpb::GetShardInfoResponse> RemoteShard::GetShardInfo(const shardpb::GetShardInfoRequest& request,
                                                                        const CallContext& context) {
  using Method = void (Async::*)(grpc::ClientContext*, const shardpb::GetShardInfoRequest*,
                                 shardpb::GetShardInfoResponse*, std::function<void(grpc::Status)>);
  return Read<shardpb::GetShardInfoResponse>(request, context, static_cast<Method>(&Async::GetShardInfo));
}

// ---------------------------------------------------------------- what becomes of calls

std::string RemoteShard::Where(const RemoteReplica& replica) const {
  return StrCat("shard ", number_, "'s replica ", replica.name(), " at ", replica.address());
}

absl::Status RemoteShard::NobodyAnswers(const std::vector<ReplicaPtr>& replicas) const {
  std::string names;
  for (const ReplicaPtr& replica : replicas) {
    names += StrCat(names.empty() ? "" : ", ", replica->name(), " at ", replica->address());
  }
  return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
               StrCat("no replica of shard ", number_, " answers: are they running? (", names, ")"));
}

void RemoteShard::OnAnswer(RemoteReplica& replica, Clock::duration took) {
  replica.OnHeard();
  replica.overtaken = 0;
  const MutexLock lock(mutex_);
  times_[answers_++ % kTimesKept] = took;
  if (answers_ % kLearnEvery != 0) return;
  std::vector<Clock::duration> times(times_.begin(), times_.begin() + std::min<uint64_t>(answers_, kTimesKept));
  const auto nth = times.begin() + static_cast<ptrdiff_t>(kHedgeQuantile * static_cast<double>(times.size() - 1));
  std::nth_element(times.begin(), nth, times.end());
  hedge_after_ = std::clamp<Clock::duration>(*nth, kHedgeAfterMin, kHedgeAfterMax);
}

// Of what was said by the replica itself, only that it can't answer now counts against it; that it did not answer, only
// if it had the time.
void RemoteShard::OnFailure(RemoteReplica& replica, const absl::Status& status, Clock::duration took) {
  const auto reason = ReasonOf(status);
  const bool away = reason == Reason::kShardUnavailable || reason == Reason::kShuttingDown ||
                    reason == Reason::kStoreDamaged ||
                    (reason == Reason::kCallerGone && took >= RemoteReplica::kAnswerMax);
  if (away && replica.state() == RemoteReplica::State::kUsable) SetState(replica, RemoteReplica::State::kAway, status);
}

void RemoteShard::OnHedge() { hedges_.Increment(); }

void RemoteShard::OnOvertaken(RemoteReplica& replica) { ++replica.overtaken; }

void RemoteShard::SetState(RemoteReplica& replica, RemoteReplica::State state, const absl::Status& why) {
  if (!replica.SetState(state, why)) return;
  if (state == RemoteReplica::State::kUsable) {
    spdlog::info("{} answers", Where(replica));
    return;
  }
  spdlog::warn("{} is left aside: {}", Where(replica), MessageOf(why));
  metrics_
      .Counter("retro_replica_ejections_total", "Times that a replica was left aside.",
               {{"shard", std::to_string(number_)}, {"replica", replica.name()}})
      .Increment();
}

// ---------------------------------------------------------------- asking how they are

// One replica, asked how it is.
struct RemoteShard::Question {
  std::shared_ptr<const ClusterConfig> config;
  ReplicaPtr replica;
  grpc::ClientContext context;
  shardpb::GetShardInfoRequest request;
  shardpb::GetShardInfoResponse info;
  bool ended = false;  // guarded by mutex_
};

// Questions are this thread's, and gRPC's callbacks only name them: a channel whose last owner is one of gRPC's own
// threads ends the process.
void RemoteShard::Run() {
  std::list<Question> questions;
  while (true) {
    Ask(questions);
    ForgetOthersThan(cluster_.get()->shards[number_]);
    const MutexLock lock(mutex_);
    const Clock::time_point next = Clock::now() + kAskEvery;
    while (!stopping_ && wake_.WaitUntil(mutex_, next)) {
    }
    const auto ended = [](const Question& question) { return question.ended; };
    while (stopping_ && !std::all_of(questions.begin(), questions.end(), ended)) wake_.Wait(mutex_);
    questions.remove_if(ended);
    if (stopping_) return;
  }
}

// Each by itself: one that does not answer must not keep from being learnt how the others are.
void RemoteShard::Ask(std::list<Question>& questions) {
  const auto config = cluster_.get();
  for (const ReplicaPtr& replica : Replicas(config->shards[number_])) {
    if (replica->asked.exchange(true)) continue;
    Question& question = questions.emplace_back();
    question.config = config;
    question.replica = replica;
    question.context.set_deadline(std::chrono::system_clock::now() + RemoteReplica::kAnswerMax);
    HandOver(&question);
    replica->stub().async()->GetShardInfo(&question.context, &question.request, &question.info,
                                          [this, &question](const grpc::Status& status) {
                                            TakeOver(&question);
                                            Learn(*question.config, status, question.info, *question.replica);
                                            question.replica->asked = false;
                                            const MutexLock lock(mutex_);
                                            question.ended = true;
                                            wake_.NotifyAll();
                                          });
  }
}

// Whoever uses one still has it from Find, which makes it anew if it comes back.
void RemoteShard::ForgetOthersThan(const ShardConfig& config) {
  std::vector<ReplicaPtr> forgotten;  // outside the lock: channels take their time to end
  const MutexLock lock(mutex_);
  for (auto it = replicas_.begin(); it != replicas_.end();) {
    const ReplicaConfig* replica = config.Find(it->first.first);
    const bool there = replica != nullptr && replica->address == it->first.second;
    if (there || it->second.use_count() > 1) {
      ++it;
    } else {
      forgotten.push_back(std::move(it->second));
      it = replicas_.erase(it);
    }
  }
}

void RemoteShard::Learn(const ClusterConfig& config, const grpc::Status& answer,
                        const shardpb::GetShardInfoResponse& info, RemoteReplica& replica) {
  const bool heard = answer.ok() || ReasonOf(FromGrpcStatus(answer)).has_value();  // it gives all its errors reasons
  if (heard) {
    replica.OnHeard();
  } else {
    replica.OnAskedInVain();
  }
  absl::Status status = FromShardCall(answer, Effect::kRead, Where(replica));
  if (status.code() == absl::StatusCode::kResourceExhausted) return;  // it is busy: who says so is there
  if (!status.ok()) return SetState(replica, RemoteReplica::State::kAway, status);
  replica.overtaken = 0;
  replica.SetPosition(info.position());
  status = CheckIdentity(info, replica, config);
  if (!status.ok()) return SetState(replica, RemoteReplica::State::kRefused, status);
  if (!info.replica().empty() && config.shards[number_].IsInSync(replica.name()) && !info.in_sync()) {
    status = Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
                   StrCat(Where(replica), " has not caught up yet"));
  }
  SetState(replica, status.ok() ? RemoteReplica::State::kUsable : RemoteReplica::State::kAway, status);
}

absl::Status RemoteShard::CheckIdentity(const shardpb::GetShardInfoResponse& info, const RemoteReplica& replica,
                                        const ClusterConfig& config) const {
  if (info.store_id() != config.store_id || info.shard() != number_ || info.shard_count() != config.shards.size()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kForeignStore,
                 StrCat(Where(replica), " has shard ", info.shard(), " of ", info.shard_count(),
                        info.store_id() == config.store_id ? "" : " of another store", ": check the cluster file"));
  }
  if (!info.replica().empty() && info.replica() != replica.name()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kClusterMismatch,
                 StrCat(Where(replica), " calls itself ", info.replica(), ": check the cluster file"));
  }
  if (info.cluster_version() != 0 && info.cluster_version() == config.version &&
      info.cluster_fingerprint() != config.Fingerprint()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kClusterMismatch,
                 StrCat(Where(replica), " has read another cluster file of version ", config.version,
                        " than this process: give all of them one file"));
  }
  return absl::OkStatus();
}

bool RemoteShard::available() const {
  const auto config = cluster_.get();
  const ShardConfig& own = config->shards[number_];
  return std::any_of(own.replicas.begin(), own.replicas.end(), [&](const ReplicaConfig& replica) {
    return own.IsInSync(replica.name) && Find(replica)->state() == RemoteReplica::State::kUsable;
  });
}

void RemoteShard::RefreshMetrics() {
  const auto config = cluster_.get();
  const ShardConfig& own = config->shards[number_];
  const uint64_t newest = Find(*own.Find(own.primary))->position().number();
  for (auto it = shown_.begin(); it != shown_.end();) {
    if (own.Find(*it) != nullptr) {
      ++it;
      continue;
    }
    for (const char* gauge : kReplicaGauges) {
      metrics_.RemoveGauge(gauge, {{"shard", std::to_string(number_)}, {"replica", *it}});
    }
    it = shown_.erase(it);
  }
  for (const ReplicaConfig& replica : own.replicas) {
    shown_.insert(replica.name);
    const ReplicaPtr remote = Find(replica);
    const prometheus::Labels labels = {{"shard", std::to_string(number_)}, {"replica", replica.name}};
    const uint64_t position = remote->position().number();
    metrics_.Gauge(kUsableGauge, "1 while the replica answers.", labels)
        .Set(remote->state() == RemoteReplica::State::kUsable ? 1 : 0);
    metrics_.Gauge(kInSyncGauge, "1 while acknowledgements wait for the replica.", labels)
        .Set(own.IsInSync(replica.name) ? 1 : 0);
    metrics_.Gauge(kCallsGauge, "Calls outstanding at the replica.", labels).Set(remote->calls.load());
    metrics_.Gauge(kLagGauge, "Changes that the replica is behind its primary.", labels)
        .Set(newest > position ? static_cast<double>(newest - position) : 0);
  }
  metrics_.Gauge("retro_shard_epoch", "The epoch of the shard.", {{"shard", std::to_string(number_)}})
      .Set(static_cast<double>(own.epoch));
  metrics_
      .Gauge("retro_shard_hedge_after_seconds", "A read that takes longer is sent to another replica too.",
             {{"shard", std::to_string(number_)}})
      .Set(std::chrono::duration<double>(HedgeAfter()).count());
}

}  // namespace retro
