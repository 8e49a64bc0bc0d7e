// One question to a shard that any of several replicas can answer: asks one, asks the next when that fails or takes
// long, and takes the first answer.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/sync.h"
#include "common/document/protos.h"
#include "retriever_service/shard/remote_replica.h"

namespace retro {

enum class Effect { kRead, kChange };

// Deadline less a margin for the way back, and request id.
void PrepareCall(const CallContext& call, grpc::ClientContext& context);

// Errors of the shard keep their reasons; those of the way there get one: SHARD_UNAVAILABLE, or WRITE_OUTCOME_UNKNOWN
// for a change, which is UNAVAILABLE however the answer was lost. `where` names the replica; the call was not cancelled
// here.
absl::Status FromShardCall(const grpc::Status& status, Effect effect, const std::string& where);

// Whether another replica may do better.
bool IsWorthAnother(const absl::Status& status);

// What becomes of each attempt, for whoever keeps count.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  virtual std::string Where(const RemoteReplica& replica) const = 0;
  // The error of a read that is given up as all of them are silent.
  virtual absl::Status NobodyAnswers(const std::vector<std::shared_ptr<RemoteReplica>>& replicas) const = 0;
  virtual void OnAnswer(RemoteReplica& replica, std::chrono::steady_clock::duration took) = 0;
  virtual void OnFailure(RemoteReplica& replica, const absl::Status& status,
                         std::chrono::steady_clock::duration took) = 0;
  virtual void OnHedge() = 0;
  // Another, asked later, has answered before it.
  virtual void OnOvertaken(RemoteReplica& replica) = 0;
};

template <typename Response>
class ReplicaCall {
 public:
  using Clock = std::chrono::steady_clock;
  using Begin = std::function<void(RemoteReplica&, grpc::ClientContext*, Response*, std::function<void(grpc::Status)>)>;

  // `replicas` in the order in which they are asked, at least one; the second when the first has not answered for
  // `hedge_after`, and so on.
  ReplicaCall(std::vector<std::shared_ptr<RemoteReplica>> replicas, Effect effect, Clock::duration hedge_after,
              CallObserver& observer, Begin begin)
      : replicas_(std::move(replicas)),
        effect_(effect),
        hedge_after_(hedge_after),
        observer_(observer),
        begin_(std::move(begin)) {}

  // Once. A caller who leaves cancels all attempts. A read ends when all replicas are silent, however long its caller
  // would wait: it would hold a thread for nothing.
  absl::StatusOr<Response> Run(const CallContext& caller) {
    absl::StatusOr<Response> answer = Race(caller);
    for (Attempt& attempt : attempts_) attempt.context.TryCancel();
    const MutexLock lock(mutex_);
    while (running_ > 0) ended_.Wait(mutex_);
    return answer;
  }

 private:
  struct Attempt {
    std::shared_ptr<RemoteReplica> replica;
    Clock::time_point start;
    grpc::ClientContext context;
    Response response;
    bool seen = false;
    std::optional<grpc::Status> status;  // once it has ended; under the mutex
  };

  absl::StatusOr<Response> Race(const CallContext& caller) {
    absl::Status error = caller.Check();
    if (!error.ok()) return error;
    std::optional<absl::Status> behind;  // of one that is asked again once it may have what is wanted
    Start(caller);
    while (true) {
      Attempt* const ended = WaitForOne();
      if (ended != nullptr) {
        ended->seen = true;
        error = FromShardCall(*ended->status, effect_, observer_.Where(*ended->replica));
        if (error.ok()) {
          observer_.OnAnswer(*ended->replica, Clock::now() - ended->start);
          for (const Attempt& attempt : attempts_) {
            if (!attempt.seen && attempt.start < ended->start) observer_.OnOvertaken(*attempt.replica);
          }
          return std::move(ended->response);
        }
        // Where damage ends the writes reads go on.
        const bool only_writes = effect_ == Effect::kChange && ReasonOf(error) == Reason::kStoreDamaged;
        if (!only_writes && caller.Check().ok()) {
          observer_.OnFailure(*ended->replica, error, Clock::now() - ended->start);
        }
        if (!IsWorthAnother(error)) return error;
        if (ReasonOf(error) == Reason::kBehindToken) behind = error;
        if (MayStart()) {
          Start(caller);
        } else if (AllSeen()) {
          return behind.value_or(error);
        }
      } else if (MayStart() && Clock::now() >= next_start_) {
        observer_.OnHedge();
        Start(caller);
      }
      if (caller.cancelled && caller.cancelled()) return CallerGoneError(/*deadline_passed=*/false);
      if (effect_ == Effect::kRead && AllSilent()) return observer_.NobodyAnswers(replicas_);
    }
  }

  bool MayStart() const { return attempts_.size() < replicas_.size(); }
  bool AllSeen() const {
    return std::all_of(attempts_.begin(), attempts_.end(), [](const Attempt& attempt) { return attempt.seen; });
  }

  bool AllSilent() const {
    return std::all_of(replicas_.begin(), replicas_.end(), [](const auto& replica) { return replica->IsSilent(); });
  }

  void Start(const CallContext& caller) {
    Attempt& attempt = attempts_.emplace_back();
    attempt.replica = replicas_[attempts_.size() - 1];
    attempt.start = Clock::now();
    next_start_ = attempt.start + hedge_after_;
    PrepareCall(caller, attempt.context);
    ++attempt.replica->calls;
    {
      const MutexLock lock(mutex_);
      ++running_;
    }
    HandOver(&attempt);
    begin_(*attempt.replica, &attempt.context, &attempt.response, [this, &attempt](grpc::Status status) {
      TakeOver(&attempt);
      --attempt.replica->calls;
      const MutexLock lock(mutex_);
      attempt.status = std::move(status);
      --running_;
      ended_.NotifyAll();
    });
  }

  // One that has ended and was not looked at; null after a short while without any.
  Attempt* WaitForOne() {
    constexpr std::chrono::milliseconds kCheckEvery{20};
    const Clock::time_point end =
        std::min(MayStart() ? next_start_ : Clock::time_point::max(), Clock::now() + kCheckEvery);
    const MutexLock lock(mutex_);
    while (true) {
      for (Attempt& attempt : attempts_) {
        if (attempt.status.has_value() && !attempt.seen) return &attempt;
      }
      if (!ended_.WaitUntil(mutex_, end)) return nullptr;
    }
  }

  const std::vector<std::shared_ptr<RemoteReplica>> replicas_;
  const Effect effect_;
  const Clock::duration hedge_after_;
  CallObserver& observer_;
  const Begin begin_;
  Clock::time_point next_start_;
  std::list<Attempt> attempts_;  // the caller's thread alone adds to it
  Mutex mutex_;
  CondVar ended_;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace retro
