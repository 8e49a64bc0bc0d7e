#include "retriever_service/ingest/snapshot_restore.h"

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/item_error.h"
#include "retriever_service/ingest/collection_spec.h"
#include "retriever_service/ingest/document_change.h"
#include "retriever_service/store/layout.h"
#include "retriever_service/store/store.h"

namespace retro {
namespace {

constexpr int kBatchDocuments = 64;
constexpr size_t kBatchBytes = size_t{8} << 20;
constexpr uint32_t kPageSize = 1000;

class Restore {
 public:
  Restore(const Store& from, const admin::v1::Snapshot& snapshot, ShardMap& shards,
          const std::function<absl::Status(float)>& progress)
      : from_(from), snapshot_(snapshot), shards_(shards), progress_(progress) {}

  absl::Status Run() {
    for (const Collection& collection : from_.Collections()) {
      RETRO_ASSIGN_OR_RETURN(const pb::CollectionSpec spec, shards_.Collection(collection.spec.name()));
      RETRO_RETURN_IF_ERROR(CheckAlike(collection.spec, spec));
    }
    for (const Collection& collection : from_.Collections()) {
      RETRO_RETURN_IF_ERROR(DeleteWhatIsNotThere(collection));
      RETRO_RETURN_IF_ERROR(WriteWhatDiffers(collection));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status DeleteWhatIsNotThere(const Collection& collection) {
    for (uint32_t number = 0; number < shards_.size(); ++number) {
      shardpb::ListDocumentsRequest list;
      list.set_collection(collection.spec.name());
      list.set_page_size(kPageSize);
      while (true) {
        RETRO_ASSIGN_OR_RETURN(const auto page, shards_.shard(number).ListDocuments(list, CallContext()));
        shardpb::DeleteRequest deletion;
        deletion.set_collection(collection.spec.name());
        for (const auto& summary : page.documents()) {
          const std::string& id = summary.document().id();
          const uint32_t slot = SlotOfDocument(id);
          if (slot < snapshot_.first_slot() || slot > snapshot_.last_slot()) continue;
          RETRO_ASSIGN_OR_RETURN(const auto record, from_.ReadDocument(collection.id, id, /*at=*/nullptr));
          if (!record.has_value()) deletion.add_document_ids(id);
        }
        if (!deletion.document_ids().empty()) {
          RETRO_RETURN_IF_ERROR(shards_.shard(number).Delete(deletion, CallContext()).status());
        }
        if (!page.has_next()) break;
        *list.mutable_after() = page.next();
      }
    }
    return absl::OkStatus();
  }

  absl::Status WriteWhatDiffers(const Collection& collection) {
    RETRO_RETURN_IF_ERROR(from_.ScanDocuments(
        collection.id, std::nullopt, /*at=*/nullptr,
        [&](uint32_t slot, const shardpb::DocumentRecord& record) -> absl::StatusOr<bool> {
          const uint32_t number = shards_.ShardOfDocument(record.document().id());
          Batch& batch = batches_[number];
          RETRO_ASSIGN_OR_RETURN(shardpb::DocumentChange change, ReadChange(from_, collection.id, record));
          batch.bytes += change.ByteSizeLong();
          batch.changes.push_back(std::move(change));
          if (batch.changes.size() >= kBatchDocuments || batch.bytes >= kBatchBytes) {
            RETRO_RETURN_IF_ERROR(Flush(collection, number));
            RETRO_RETURN_IF_ERROR(progress_(static_cast<float>(slot) / kSlotCount));
          }
          return true;
        }));
    for (auto& [number, batch] : batches_) RETRO_RETURN_IF_ERROR(Flush(collection, number));
    return absl::OkStatus();
  }

  absl::Status Flush(const Collection& collection, uint32_t number) {
    Batch batch = std::exchange(batches_[number], {});
    if (batch.changes.empty()) return absl::OkStatus();
    shardpb::WriteRequest request;
    request.set_collection(collection.spec.name());
    request.set_embedder_fingerprint(collection.spec.embedder_fingerprint());
    request.set_tokenizer_fingerprint(collection.spec.tokenizer_fingerprint());
    request.mutable_changes()->Assign(batch.changes.begin(), batch.changes.end());
    RETRO_ASSIGN_OR_RETURN(const auto response, shards_.shard(number).Write(request, CallContext()));
    shardpb::DeleteRequest newer;  // versions that were written since go, or they would refuse the older ones
    newer.set_collection(collection.spec.name());
    shardpb::WriteRequest again = request;
    again.clear_changes();
    for (int i = 0; i < response.results_size(); ++i) {
      if (!response.results(i).has_error()) continue;
      const absl::Status error = FromItemError(response.results(i).error());
      if (ReasonOf(error) != Reason::kVersionTooOld) return error;
      newer.add_document_ids(request.changes(i).document().id());
      *again.add_changes() = request.changes(i);
    }
    if (again.changes().empty()) return absl::OkStatus();
    RETRO_RETURN_IF_ERROR(shards_.shard(number).Delete(newer, CallContext()).status());
    RETRO_ASSIGN_OR_RETURN(const auto rest, shards_.shard(number).Write(again, CallContext()));
    for (const auto& result : rest.results()) {
      if (result.has_error()) return FromItemError(result.error());
    }
    return absl::OkStatus();
  }

  struct Batch {
    std::vector<shardpb::DocumentChange> changes;
    size_t bytes = 0;
  };

  const Store& from_;
  const admin::v1::Snapshot& snapshot_;
  ShardMap& shards_;
  const std::function<absl::Status(float)>& progress_;
  std::map<uint32_t, Batch> batches_;  // by shard
};

}  // namespace

absl::Status RestoreSnapshot(const std::string& path, const admin::v1::Snapshot& snapshot, ShardMap& shards,
                             const std::function<absl::Status(float)>& progress) {
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<Store> from, Store::OpenSnapshot(path));
  return Restore(*from, snapshot, shards, progress).Run();
}

}  // namespace retro
