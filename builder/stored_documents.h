// Documents out of the shards of a store: data folders that nobody serves, or snapshots. In the order of collections,
// slots and ids, whatever number of shards they lie in.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "builder/document_source.h"
#include "common/document/protos.h"
#include "retriever_service/store/store.h"

namespace retro {

// All shards of one store, opened for reading.
class StoredShards {
 public:
  // FAILED_PRECONDITION if they are not every shard of one store, each once, with collections that are alike.
  static absl::StatusOr<StoredShards> Open(const std::vector<std::string>& folders);

  size_t size() const { return stores_.size(); }
  const Store& store(size_t shard) const { return *stores_[shard]; }
  const std::string& store_id() const { return stores_[0]->identity().store_id; }
  // By name.
  const std::vector<pb::CollectionSpec>& collections() const { return collections_; }
  // Says what they hold, as far as one may tell from outside: equal if nothing was changed since.
  std::string Fingerprint() const;

 private:
  absl::Status ReadCollections();

  std::vector<std::unique_ptr<Store>> stores_;  // by shard
  std::vector<pb::CollectionSpec> collections_;
};

struct StoredDocumentsOptions {
  uint32_t first_slot = 0;
  uint32_t last_slot = 0;
  bool with_chunks = true;  // as they are stored; else the text alone, to be cut anew
  std::vector<std::string> collections;
};

class StoredDocuments final : public DocumentSource {
 public:
  // `shards` must outlive this.
  StoredDocuments(const StoredShards& shards, StoredDocumentsOptions options)
      : shards_(shards), options_(std::move(options)) {}

  void GoOnAt(const SourcePlace& place) override { place_ = place; }
  absl::StatusOr<std::optional<DocumentGroup>> Next() override;
  double share_read() const override;

 private:
  absl::Status Fill(const Store& store, uint32_t collection, DocumentGroup& group);
  absl::StatusOr<shardpb::DocumentChange> Read(const Store& store, uint32_t collection,
                                               const shardpb::DocumentRecord& record) const;

  const StoredShards& shards_;
  const StoredDocumentsOptions options_;
  SourcePlace place_;
};

}  // namespace retro
