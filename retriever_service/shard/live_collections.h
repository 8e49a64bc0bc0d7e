// The collections of an open shard, each with its index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/sync.h"
#include "common/base/worker_pool.h"
#include "retriever_service/index/segmented_index.h"
#include "retriever_service/store/store.h"

namespace retro {

// An index that has more segments left to be sealed than this slows down who fills it: every chunk of them is compared
// by each search, and lies in memory.
inline constexpr size_t kFrozenMax = 8;

struct LiveCollection {
  LiveCollection() = default;
  // Of one that was dropped, takes the index's folder along.
  ~LiveCollection();
  LiveCollection(const LiveCollection&) = delete;
  LiveCollection& operator=(const LiveCollection&) = delete;

  uint32_t id = 0;
  pb::CollectionSpec spec;
  std::string index_folder;
  std::unique_ptr<SegmentedIndex> index;
  bool dropped = false;  // the writer thread's
};

// Any thread. Collections live until nobody uses them, at most as long as this.
class LiveCollections {
 public:
  explicit LiveCollections(const IndexSettings& settings) : index_settings_(settings) {}

  // With the index that the store's folder holds of it, which is still to be filled. It is not added yet. The end of
  // one that was dropped takes seconds to minutes, and is carried out by a thread of this.
  std::shared_ptr<LiveCollection> Make(const Store& store, const Collection& collection);
  // NOT_FOUND (COLLECTION_NOT_FOUND) if there is none of that name.
  absl::StatusOr<std::shared_ptr<LiveCollection>> Find(const std::string& name) const ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<LiveCollection> FindById(uint32_t id) const ABSL_LOCKS_EXCLUDED(mutex_);  // null if there is none
  std::vector<std::shared_ptr<LiveCollection>> All() const ABSL_LOCKS_EXCLUDED(mutex_);     // by name
  void Add(std::shared_ptr<LiveCollection> collection) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(const LiveCollection& collection) ABSL_LOCKS_EXCLUDED(mutex_);
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const IndexSettings index_settings_;
  WorkerPool removing_{1, SIZE_MAX};
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<LiveCollection>> collections_ ABSL_GUARDED_BY(mutex_);
};

// Removes what the store's folder holds of indexes of collections that the store does not have: a process may have died
// between dropping one and removing its index.
void RemoveOtherIndexes(const Store& store);

// COLLECTION_NOT_FOUND.
absl::Status NoSuchCollection(std::string_view name);

// FAILED_PRECONDITION if vectors or chunks come from others than the collection's own. An empty fingerprint is not
// checked.
absl::Status CheckEmbedder(const LiveCollection& collection, const std::string& fingerprint);
absl::Status CheckTokenizer(const LiveCollection& collection, const std::string& fingerprint);

}  // namespace retro
