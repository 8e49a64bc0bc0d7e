#include "builder/stored_documents.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/ingest/collection_spec.h"
#include "retriever_service/ingest/document_change.h"
#include "retriever_service/store/layout.h"

namespace retro {

absl::StatusOr<StoredShards> StoredShards::Open(const std::vector<std::string>& folders) {
  StoredShards shards;
  for (const std::string& folder : folders) {
    if (!std::filesystem::is_directory(folder + "/rocksdb")) {
      return absl::NotFoundError(StrCat(folder, " holds no store: name the data folder of a shard, or a snapshot"));
    }
    RETRO_ASSIGN_OR_RETURN(shards.stores_.emplace_back(), Store::OpenSnapshot(folder));
  }
  std::sort(shards.stores_.begin(), shards.stores_.end(),
            [](const auto& a, const auto& b) { return a->identity().shard < b->identity().shard; });
  const StoreIdentity& first = shards.stores_[0]->identity();
  for (size_t i = 0; i < shards.stores_.size(); ++i) {
    const StoreIdentity& one = shards.stores_[i]->identity();
    if (one.store_id != first.store_id) {
      return absl::FailedPreconditionError(
          StrCat(shards.stores_[0]->path(), " and ", shards.stores_[i]->path(), " are not of one store"));
    }
  }
  for (size_t i = 0; i < shards.stores_.size(); ++i) {
    const StoreIdentity& one = shards.stores_[i]->identity();
    if (one.shard != i || one.shard_count != shards.size()) {
      return absl::FailedPreconditionError(
          StrCat(shards.stores_[i]->path(), " is shard ", one.shard, " of ", one.shard_count, ", and ", shards.size(),
                 " folders are named: name every shard of the store, each once, or documents would be lost"));
    }
  }
  RETRO_RETURN_IF_ERROR(shards.ReadCollections());
  return shards;
}

absl::Status StoredShards::ReadCollections() {
  std::map<std::string, pb::CollectionSpec> collections;
  for (const auto& store : stores_) {
    for (const Collection& collection : store->Collections()) {
      const auto [at, is_new] = collections.emplace(collection.spec.name(), collection.spec);
      if (!is_new) RETRO_RETURN_IF_ERROR(CheckAlike(collection.spec, at->second));
    }
  }
  for (auto& [name, spec] : collections) collections_.push_back(std::move(spec));
  return absl::OkStatus();
}

std::string StoredShards::Fingerprint() const {
  Sha256 hash;
  for (const auto& store : stores_) {
    hash.UpdateField(store->identity().store_id);
    hash.UpdateField(StrCat(store->last_position().epoch(), "/", store->last_position().number()));
  }
  return hash.Finish();
}

absl::StatusOr<std::optional<DocumentGroup>> StoredDocuments::Next() {
  while (place_.source < options_.collections.size() * shards_.size()) {
    const Store& store = shards_.store(place_.source % shards_.size());
    const auto collection = store.FindCollection(options_.collections[place_.source / shards_.size()]);
    if (collection.has_value()) {
      DocumentGroup group;
      group.collection = collection->spec.name();
      RETRO_RETURN_IF_ERROR(Fill(store, collection->id, group));
      if (!group.changes.empty()) return group;
    }
    place_ = {place_.source + 1, 0, {}};
  }
  return std::nullopt;
}

double StoredDocuments::share_read() const {
  const auto sources = static_cast<double>(options_.collections.size() * shards_.size());
  return (static_cast<double>(place_.source) + static_cast<double>(place_.ordinal) / kSlotCount) / sources;
}

absl::Status StoredDocuments::Fill(const Store& store, uint32_t collection, DocumentGroup& group) {
  // An id is never empty, so that the place before a slot is the slot with none.
  const Store::DocumentPlace after = {std::max(static_cast<uint32_t>(place_.ordinal), options_.first_slot), place_.id};
  size_t bytes = 0;
  RETRO_RETURN_IF_ERROR(store.ScanDocuments(
      collection, after, /*at=*/nullptr, [&](uint32_t, const shardpb::DocumentRecord& record) -> absl::StatusOr<bool> {
        const uint32_t slot = SlotOfDocument(record.document().id());
        if (slot > options_.last_slot) return false;
        RETRO_ASSIGN_OR_RETURN(group.changes.emplace_back(), Read(store, collection, record));
        bytes += group.changes.back().document().ByteSizeLong();
        place_ = {place_.source, slot, record.document().id()};
        return group.changes.size() < kGroupDocuments && bytes < kGroupBytes;
      }));
  group.next = place_;
  return absl::OkStatus();
}

absl::StatusOr<shardpb::DocumentChange> StoredDocuments::Read(const Store& store, uint32_t collection,
                                                              const shardpb::DocumentRecord& record) const {
  shardpb::DocumentChange change;
  if (options_.with_chunks) {
    RETRO_ASSIGN_OR_RETURN(change, ReadChange(store, collection, record));
  } else {
    pb::Document document = record.document();
    RETRO_ASSIGN_OR_RETURN(*document.mutable_text(), store.ReadText(collection, record, /*at=*/nullptr));
    change = MakeChange(std::move(document));
  }
  *change.mutable_write_time() = record.write_time();
  return change;
}

}  // namespace retro
