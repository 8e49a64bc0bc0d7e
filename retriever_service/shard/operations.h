// Long work on an operator's behalf: begun by one call, watched by others.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/sync.h"
#include "common/base/worker_pool.h"
#include "retro/admin/v1/admin.pb.h"

namespace retro {

// Any thread.
class Operations {
 public:
  // Each has one piece of work after the other, whatever the others do: who makes a backup waits for no compaction.
  enum class Line { kMaintenance, kSnapshots };

  Operations();
  // Tells what runs to end, and waits for that; what waits is not begun.
  ~Operations();

  // Sets an operation's progress, 0 to 1. CANCELLED if it is to end.
  using Progress = std::function<absl::Status(float)>;
  // RESOURCE_EXHAUSTED (QUEUE_FULL) if too much waits in the line. Work that cannot ask for its end often is ended by
  // `cancel`, on another thread, maybe before it begins.
  absl::StatusOr<admin::v1::Operation> Begin(
      Line line, std::function<absl::Status(const Progress&)> work, std::function<void()> cancel = [] {});
  // NOT_FOUND if there is none of that id, or it ended more than a day ago.
  absl::StatusOr<admin::v1::Operation> Get(const std::string& id) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run(const std::string& id, const std::function<absl::Status(const Progress&)>& work);
  WorkerPool& WorkerOf(Line line) { return line == Line::kSnapshots ? snapshots_ : maintenance_; }
  void Change(const std::string& id, const std::function<void(admin::v1::Operation&)>& change)
      ABSL_LOCKS_EXCLUDED(mutex_);

  mutable Mutex mutex_;
  std::list<admin::v1::Operation> operations_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::function<void()>> cancels_ ABSL_GUARDED_BY(mutex_);  // by id, of what has not ended
  uint64_t begun_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> stopping_ = false;
  const std::string run_;   // in ids, so that those of another run are unknown
  WorkerPool maintenance_;  // last: they use all of the above
  WorkerPool snapshots_;
};

}  // namespace retro
