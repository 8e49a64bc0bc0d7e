// What a process knows of its cluster: the cluster file as last read, read again when it changes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/sync.h"
#include "retriever_service/cluster/cluster_file.h"

namespace retro {

// Any thread.
class ClusterWatch {
 public:
  // Reads the file, which must be right; then looks at it again and again on a thread of its own. A later state of it
  // that is not right, is older than what was read, differs from it under the same version, or has other shards or
  // slots, is logged and not taken: the one before stays in force.
  static absl::StatusOr<std::unique_ptr<ClusterWatch>> Start(const std::string& path);
  ~ClusterWatch();

  std::shared_ptr<const ClusterConfig> Get() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Looks at the file now; for callers who were told that what they know is old.
  void Reload() ABSL_LOCKS_EXCLUDED(reload_mutex_, mutex_);
  // As UpdateClusterFile; what it then holds is in force here when this returns.
  absl::Status Update(const std::function<absl::Status(ClusterConfig&)>& change)
      ABSL_LOCKS_EXCLUDED(reload_mutex_, mutex_);

  // Called after each change, on whatever thread noticed it; it must not call this. Empty: nobody is. Returns when the
  // one before is not being called any more.
  void SetListener(std::function<void()> listener) ABSL_LOCKS_EXCLUDED(reload_mutex_);

  const std::string& path() const { return path_; }

 private:
  ClusterWatch(std::string path, ClusterConfig config);
  void Run() ABSL_LOCKS_EXCLUDED(reload_mutex_, mutex_);
  absl::Status Take(ClusterConfig config) ABSL_EXCLUSIVE_LOCKS_REQUIRED(reload_mutex_) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string path_;
  Mutex reload_mutex_;  // one reading at a time
  std::string last_text_ ABSL_GUARDED_BY(reload_mutex_);
  std::function<void()> listener_ ABSL_GUARDED_BY(reload_mutex_);

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<const ClusterConfig> config_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace retro
