// A router's reads that have to wait, at a shard, for what their consistency token covers. Each holds a worker, and of
// several shards a thread of each as well: so many may, shared fairly between keys, that whoever makes up tokens holds
// up nobody else.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/util/time_util.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/error.h"
#include "common/base/fair_share.h"
#include "common/base/sync.h"
#include "common/document/protos.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/shard/shard.h"

namespace retro {

// Any thread.
class WaitingReads {
 public:
  explicit WaitingReads(int most) : places_(most) {}

  // False if there is no place (for `key`, see FairShare; of few the last is for who has none).
  bool TryBegin(const std::string& key) {
    const MutexLock lock(mutex_);
    if (places_.free() == 1 && places_.holds_some(key)) return false;
    return places_.TryTake(key);
  }
  void End(const std::string& key) {
    const MutexLock lock(mutex_);
    places_.Release(key);
  }

 private:
  Mutex mutex_;
  FairShare places_ ABSL_GUARDED_BY(mutex_);
};

// The place of one read, however many shards it waits for: taken when it has to wait, given back with this. Any thread.
class WaitingPlace {
 public:
  // `reads` must outlive this.
  WaitingPlace(WaitingReads& reads, std::string key) : reads_(reads), key_(std::move(key)) {}
  ~WaitingPlace() {
    if (taken_) reads_.End(key_);
  }
  WaitingPlace(const WaitingPlace&) = delete;
  WaitingPlace& operator=(const WaitingPlace&) = delete;

  bool Take() {
    const MutexLock lock(mutex_);
    taken_ = taken_ || reads_.TryBegin(key_);
    return taken_;
  }

 private:
  WaitingReads& reads_;
  const std::string key_;
  Mutex mutex_;
  bool taken_ ABSL_GUARDED_BY(mutex_) = false;
};

// Asks a shard to wait for what the request's barrier wants no longer than a search may take anyway, in which a replica
// that is a little behind has it, and only if that was not enough, and there is a place, for as long as the caller
// does.
template <typename Request, typename Response>
absl::StatusOr<Response> ReadBehindBarrier(Shard& shard,
                                           absl::StatusOr<Response> (Shard::*read)(const Request&, const CallContext&),
                                           Request request, WaitingPlace& place, const CallContext& context) {
  using google::protobuf::util::TimeUtil;
  if (!request.has_barrier()) return (shard.*read)(request, context);
  const google::protobuf::Duration max_wait = request.barrier().max_wait();
  const bool waits_long = TimeUtil::DurationToMilliseconds(max_wait) > kShortWait.count();
  if (waits_long) {
    *request.mutable_barrier()->mutable_max_wait() = TimeUtil::MillisecondsToDuration(kShortWait.count());
  }
  absl::StatusOr<Response> answer = (shard.*read)(request, context);
  if (!waits_long || ReasonOf(answer.status()) != Reason::kBehindToken || !place.Take()) return answer;
  *request.mutable_barrier()->mutable_max_wait() = max_wait;
  return (shard.*read)(request, context);
}

}  // namespace retro
