// The shards of a store: which one holds a document, and what all of them agree on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "common/base/sync.h"
#include "common/base/worker_pool.h"
#include "common/document/protos.h"
#include "retriever_service/shard/shard.h"

namespace retro {

// What a change says that several shards were asked for, from their answers. One that some of them made, or may have
// made, and others did not is WRITE_OUTCOME_UNKNOWN, whatever those say of themselves; `changed`: which of them made
// it.
absl::Status AnswerOfAll(const std::vector<absl::Status>& answers, const std::vector<bool>& changed);

// Threads that ask several shards side by side; as many again change them.
inline constexpr int kFanOutThreadsPerShard = 8;

// Any thread.
class ShardMap {
 public:
  // Shard i of the list is shard number i. Slots are dealt out evenly, in order.
  // FAILED_PRECONDITION (FOREIGN_STORE) if they are not all of one store.
  static absl::StatusOr<std::unique_ptr<ShardMap>> Create(std::vector<std::unique_ptr<Shard>> shards);
  // Shards that check themselves who they are and may not answer yet; `last_slots[i]` is the last slot of shard i.
  static std::unique_ptr<ShardMap> OfCluster(std::vector<std::unique_ptr<Shard>> shards, std::string store_id,
                                             std::vector<uint32_t> last_slots);

  uint32_t size() const { return static_cast<uint32_t>(shards_.size()); }
  Shard& shard(uint32_t number) { return *shards_[number]; }
  uint32_t ShardOfDocument(const std::string& document_id) const;
  const std::string& store_id() const { return store_id_; }

  // What a collection was made with; NOT_FOUND (COLLECTION_NOT_FOUND) if there is none of that name. It is asked for
  // once: that a collection is dropped through another router shows when a shard says so, which is to be told to Heed.
  absl::StatusOr<pb::CollectionSpec> Collection(const std::string& name);
  // For calls that no shard answers: asks whether it is still there. The default one always is.
  absl::StatusOr<pb::CollectionSpec> CollectionNow(const std::string& name, const CallContext& context);
  void Forget(const std::string& name);
  // A shard has answered so to a call that was about the collection. Returns the status.
  absl::Status Heed(absl::Status status, const std::string& name);
  absl::StatusOr<std::vector<pb::CollectionSpec>> Collections(const CallContext& context);

  // Calls `ask` for every shard, side by side, and returns when all have answered; one status a shard, in order.
  std::vector<absl::Status> AskAll(const std::function<absl::Status(uint32_t number, Shard& shard)>& ask);
  // The same for what changes them: it may wait long for a shard, and has threads of its own, so that no read does.
  std::vector<absl::Status> ChangeAll(const std::function<absl::Status(uint32_t number, Shard& shard)>& change);

 private:
  explicit ShardMap(std::vector<std::unique_ptr<Shard>> shards);
  absl::StatusOr<pb::CollectionSpec> Ask(const std::string& name, const CallContext& context);
  std::vector<absl::Status> CallAll(WorkerPool* beside,
                                    const std::function<absl::Status(uint32_t number, Shard& shard)>& call);

  const std::vector<std::unique_ptr<Shard>> shards_;
  std::string store_id_;
  std::vector<uint32_t> last_slots_;
  std::unique_ptr<WorkerPool> reading_, changing_;  // null for one shard
  Mutex mutex_;
  std::vector<pb::CollectionSpec> collections_ ABSL_GUARDED_BY(mutex_);  // as last read
};

}  // namespace retro
