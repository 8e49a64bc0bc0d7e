#include "retriever_service/shard/live_collections.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/heap.h"
#include "common/base/strings.h"
#include "retriever_service/store/folder.h"

namespace retro {
namespace {

// In a store's folder; of each collection in one of its number.
std::string IndexesOf(const Store& store) { return StrCat(store.path(), "/index"); }

void RemoveIndex(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) spdlog::warn("{}, of a collection that was dropped, cannot be removed: {}", folder, error.message());
}

}  // namespace

LiveCollection::~LiveCollection() {
  if (!dropped) return;
  index.reset();  // its threads write there
  RemoveIndex(index_folder);
  GiveFreedMemoryBack();
}

absl::StatusOr<std::shared_ptr<LiveCollection>> LiveCollections::Find(const std::string& name) const {
  const MutexLock lock(mutex_);
  const auto it = collections_.find(name);
  if (it != collections_.end()) return it->second;
  return NoSuchCollection(name);
}

std::shared_ptr<LiveCollection> LiveCollections::FindById(uint32_t id) const {
  const MutexLock lock(mutex_);
  for (const auto& [name, collection] : collections_) {
    if (collection->id == id) return collection;
  }
  return nullptr;
}

std::vector<std::shared_ptr<LiveCollection>> LiveCollections::All() const {
  std::vector<std::shared_ptr<LiveCollection>> all;
  const MutexLock lock(mutex_);
  all.reserve(collections_.size());
  for (const auto& [name, collection] : collections_) all.push_back(collection);
  return all;
}

void LiveCollections::Add(std::shared_ptr<LiveCollection> collection) {
  const MutexLock lock(mutex_);
  const std::string name = collection->spec.name();
  collections_[name] = std::move(collection);
}

void LiveCollections::Remove(const LiveCollection& collection) {
  const MutexLock lock(mutex_);
  collections_.erase(collection.spec.name());
}

size_t LiveCollections::size() const {
  const MutexLock lock(mutex_);
  return collections_.size();
}

std::shared_ptr<LiveCollection> LiveCollections::Make(const Store& store, const Collection& collection) {
  const std::shared_ptr<LiveCollection> live(new LiveCollection, [this](const LiveCollection* ended) {
    if (!ended->dropped || !removing_.Submit([ended] { delete ended; })) delete ended;
  });
  live->id = collection.id;
  live->spec = collection.spec;
  SegmentedIndexOptions options;
  options.settings = index_settings_;
  options.folder = live->index_folder = StrCat(IndexesOf(store), "/", collection.id);
  options.identity = {store.identity().store_id, collection.id, static_cast<int>(collection.spec.dimension()),
                      index_settings_.kind};
  live->index = std::make_unique<SegmentedIndex>(options, store.last_position());
  return live;
}

void RemoveOtherIndexes(const Store& store) {
  absl::flat_hash_set<std::string> known;
  for (const Collection& collection : store.Collections()) known.insert(StrCat(collection.id));
  std::error_code error;
  for (const std::string& name : NamesIn(IndexesOf(store), error)) {
    if (!known.contains(name)) RemoveIndex(StrCat(IndexesOf(store), "/", name));
  }
}

absl::Status NoSuchCollection(std::string_view name) {
  return Error(absl::StatusCode::kNotFound, Reason::kCollectionNotFound,
               StrCat("there is no collection \"", name, "\": make it, or leave the name empty for the default one"));
}

absl::Status CheckEmbedder(const LiveCollection& collection, const std::string& fingerprint) {
  if (fingerprint.empty() || fingerprint == collection.spec.embedder_fingerprint()) return absl::OkStatus();
  return Error(
      absl::StatusCode::kFailedPrecondition, Reason::kEmbedderMismatch,
      StrCat("collection \"", collection.spec.name(), "\" was made with embedder ",
             HexEncode(collection.spec.embedder_fingerprint()), ", these vectors come from ", HexEncode(fingerprint)));
}

absl::Status CheckTokenizer(const LiveCollection& collection, const std::string& fingerprint) {
  if (fingerprint.empty() || fingerprint == collection.spec.tokenizer_fingerprint()) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kTokenizerMismatch,
               StrCat("collection \"", collection.spec.name(), "\" was made with tokenizer ",
                      HexEncode(collection.spec.tokenizer_fingerprint()), ", these chunks were cut with ",
                      HexEncode(fingerprint)));
}

}  // namespace retro
