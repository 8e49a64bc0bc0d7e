// Long work on an operator's behalf: begun by one call, watched by others.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/sync.h"
#include "common/base/worker_pool.h"
#include "retro/admin/v1/admin.pb.h"

namespace retro {

// Any thread. One piece of work after the other.
class Operations {
 public:
  Operations();
  // Tells what runs or waits to end, and waits for that.
  ~Operations();

  // Sets an operation's progress, 0 to 1. CANCELLED if it is to end.
  using Progress = std::function<absl::Status(float)>;
  // RESOURCE_EXHAUSTED (QUEUE_FULL) if too much waits.
  absl::StatusOr<admin::v1::Operation> Begin(std::function<absl::Status(const Progress&)> work);
  // NOT_FOUND if there is none of that id, or it ended more than a day ago.
  absl::StatusOr<admin::v1::Operation> Get(const std::string& id) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Change(const std::string& id, const std::function<void(admin::v1::Operation&)>& change)
      ABSL_LOCKS_EXCLUDED(mutex_);

  mutable Mutex mutex_;
  std::list<admin::v1::Operation> operations_ ABSL_GUARDED_BY(mutex_);
  uint64_t begun_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> stopping_ = false;
  const std::string run_;  // in ids, so that those of another run are unknown
  WorkerPool worker_;      // last: it uses all of the above
};

}  // namespace retro
