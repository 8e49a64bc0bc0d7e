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
      : from_(from), snapshot_(snapshot), shards_(shards), progress_(progress) {
    context_.cancelled = [this] { return !progress_(done_).ok(); };
  }

  absl::Status Run() {
    absl::Status status = RestoreAll();
    if (status.ok()) return status;
    absl::Status ended = progress_(done_);  // then that is why, whatever a call that was cut off says
    return ended.ok() ? status : ended;
  }

 private:
  absl::Status RestoreAll() {
    const std::vector<Collection> collections = from_.Collections();
    std::vector<pb::CollectionSpec> named;
    for (const Collection& collection : collections) {
      auto spec = shards_.CollectionNow(collection.spec.name(), context_);
      const bool missing = ReasonOf(spec.status()) == Reason::kCollectionNotFound;
      if (missing) spec = shards_.Collection("");  // as all that the server can use
      RETRO_RETURN_IF_ERROR(spec.status());
      RETRO_RETURN_IF_ERROR(CheckAlike(collection.spec, *spec));
      if (!collection.spec.name().empty()) named.push_back(missing ? collection.spec : *spec);
    }
    // On all shards: what ended halfway may have left one on some of them alone.
    for (const pb::CollectionSpec& spec : named) RETRO_RETURN_IF_ERROR(MakeCollection(spec));
    steps_ = 2 * collections.size();
    for (const Collection& collection : collections) {
      RETRO_RETURN_IF_ERROR(DeleteWhatIsNotThere(collection));
      ++step_;
      RETRO_RETURN_IF_ERROR(WriteWhatDiffers(collection));
      ++step_;
    }
    return absl::OkStatus();
  }

  absl::Status MakeCollection(const pb::CollectionSpec& spec) {
    shardpb::CreateCollectionRequest request;
    *request.mutable_spec() = spec;
    for (uint32_t number = 0; number < shards_.size(); ++number) {
      RETRO_RETURN_IF_ERROR(shards_.shard(number).CreateCollection(request, context_).status());
    }
    return absl::OkStatus();
  }

  // Each step goes through the slots once.
  absl::Status Report(uint32_t slot) {
    const float part = static_cast<float>(slot) / static_cast<float>(kSlotCount);
    done_ = (static_cast<float>(step_) + part) / static_cast<float>(steps_);
    return progress_(done_);
  }

  absl::Status DeleteWhatIsNotThere(const Collection& collection) {
    uint32_t slot = 0;
    for (uint32_t number = 0; number < shards_.size(); ++number) {
      shardpb::ListDocumentsRequest list;
      list.set_collection(collection.spec.name());
      list.set_page_size(kPageSize);
      for (bool more = true; more;) {
        RETRO_ASSIGN_OR_RETURN(const auto page, shards_.shard(number).ListDocuments(list, context_));
        shardpb::DeleteRequest deletion;
        deletion.set_collection(collection.spec.name());
        for (const auto& summary : page.documents()) {
          const std::string& id = summary.document().id();
          slot = SlotOfDocument(id);
          if (slot < snapshot_.first_slot() || slot > snapshot_.last_slot()) continue;
          RETRO_ASSIGN_OR_RETURN(const auto record, from_.ReadDocument(collection.id, id, /*at=*/nullptr));
          if (!record.has_value()) deletion.add_document_ids(id);
        }
        if (!deletion.document_ids().empty()) {
          RETRO_RETURN_IF_ERROR(shards_.shard(number).Delete(deletion, context_).status());
        }
        RETRO_RETURN_IF_ERROR(Report(slot));
        more = page.has_next();
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
          change.set_any_version(true);
          batch.bytes += change.ByteSizeLong();
          *batch.request.add_changes() = std::move(change);
          if (batch.request.changes_size() >= kBatchDocuments || batch.bytes >= kBatchBytes) {
            RETRO_RETURN_IF_ERROR(Flush(collection, number));
            RETRO_RETURN_IF_ERROR(Report(slot));
          }
          return true;
        }));
    for (auto& [number, batch] : batches_) RETRO_RETURN_IF_ERROR(Flush(collection, number));
    return absl::OkStatus();
  }

  absl::Status Flush(const Collection& collection, uint32_t number) {
    shardpb::WriteRequest request = std::exchange(batches_[number], {}).request;
    if (request.changes().empty()) return absl::OkStatus();
    request.set_collection(collection.spec.name());
    request.set_embedder_fingerprint(collection.spec.embedder_fingerprint());
    request.set_tokenizer_fingerprint(collection.spec.tokenizer_fingerprint());
    RETRO_ASSIGN_OR_RETURN(const auto response, shards_.shard(number).Write(request, context_));
    for (const auto& result : response.results()) {
      if (result.has_error()) return FromItemError(result.error());
    }
    return absl::OkStatus();
  }

  struct Batch {
    shardpb::WriteRequest request;
    size_t bytes = 0;
  };

  const Store& from_;
  const admin::v1::Snapshot& snapshot_;
  ShardMap& shards_;
  const std::function<absl::Status(float)>& progress_;
  CallContext context_;  // of all calls of shards
  size_t step_ = 0, steps_ = 1;
  float done_ = 0;                     // changes between calls alone
  std::map<uint32_t, Batch> batches_;  // by shard
};

}  // namespace

absl::Status RestoreSnapshot(const std::string& path, const admin::v1::Snapshot& snapshot, ShardMap& shards,
                             const std::function<absl::Status(float)>& progress) {
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<Store> from, Store::OpenSnapshot(path));
  return Restore(*from, snapshot, shards, progress).Run();
}

}  // namespace retro
