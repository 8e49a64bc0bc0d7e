// A shard in this process: the store, and an index a collection, of which the store makes what is missing when the
// shard is opened.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/call_context.h"
#include "retriever_service/shard/applied_position.h"
#include "retriever_service/shard/live_collections.h"
#include "retriever_service/shard/shard.h"
#include "retriever_service/shard/shard_writer.h"
#include "retriever_service/store/store.h"

namespace retro {

struct LocalShardOptions {
  StoreOptions store;
  IndexSettings index;
  // The collection "" as this server would make it: made in a new store, compared in an old one. None: whatever is
  // there.
  std::optional<pb::CollectionSpec> default_collection;
  // One of several replicas: changes are refused, and the collection is not made, before Lead().
  bool replicated = false;
  // Whether changes of callers are refused on command, as for all replicas alike. Empty: only as SetReadOnly says. Any
  // thread.
  std::function<bool()> read_only;
  size_t reply_bytes_max = size_t{64} << 20;  // of the neighbours of one search
  int waiting_reads_max = 4;                  // that wait for what their consistency token covers; see AppliedPosition
};

class LocalShard : public Shard {
 public:
  // FAILED_PRECONDITION, naming the folder and what to do: as Store::Open, and EMBEDDER_MISMATCH or TOKENIZER_MISMATCH
  // if the stored default collection was made with others. DATA_LOSS (STORE_DAMAGED) if the store contradicts itself.
  static absl::StatusOr<std::unique_ptr<LocalShard>> Open(const LocalShardOptions& options);

  absl::StatusOr<shardpb::SearchResponse> Search(const shardpb::SearchRequest& request,
                                                 const CallContext& context) override;
  absl::StatusOr<shardpb::WriteResponse> Write(const shardpb::WriteRequest& request,
                                               const CallContext& context) override;
  absl::StatusOr<shardpb::DeleteResponse> Delete(const shardpb::DeleteRequest& request,
                                                 const CallContext& context) override;
  absl::StatusOr<shardpb::CreateCollectionResponse> CreateCollection(const shardpb::CreateCollectionRequest& request,
                                                                     const CallContext& context) override;
  absl::StatusOr<shardpb::DropCollectionResponse> DropCollection(const shardpb::DropCollectionRequest& request,
                                                                 const CallContext& context) override;
  absl::StatusOr<shardpb::GetDocumentResponse> GetDocument(const shardpb::GetDocumentRequest& request,
                                                           const CallContext& context) override;
  absl::StatusOr<shardpb::GetChunksResponse> GetChunks(const shardpb::GetChunksRequest& request,
                                                       const CallContext& context) override;
  absl::StatusOr<shardpb::ListDocumentsResponse> ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                               const CallContext& context) override;
  absl::StatusOr<shardpb::StatsResponse> Stats(const shardpb::StatsRequest& request,
                                               const CallContext& context) override;
  absl::StatusOr<shardpb::GetShardInfoResponse> GetShardInfo(const shardpb::GetShardInfoRequest& request,
                                                             const CallContext& context) override;

  // Delete, which calls `between` as ShardWriter::Delete does.
  absl::StatusOr<shardpb::DeleteResponse> DeleteInParts(const shardpb::DeleteRequest& request,
                                                        const CallContext& context,
                                                        const ShardWriter::Between& between);

  // On command: changes of callers are refused (READ_ONLY) from now on, or no longer. Not remembered.
  void SetReadOnly(bool read_only) { read_only_ = read_only; }

  // As SegmentedIndex::SealGrowing; NOT_FOUND (COLLECTION_NOT_FOUND) if there is no such collection. The result waits
  // for that as SegmentedIndex::WaitForSealing; it may outlive the collection, but not the shard.
  absl::StatusOr<std::function<absl::Status(absl::Duration most)>> SealIndex(const std::string& collection) const;
  // As SegmentedIndex::WaitForMaintenance, of all collections, for `most` each.
  absl::Status WaitForIndexes(size_t frozen_max, absl::Duration most = absl::InfiniteDuration()) const;

  // ------------------------------------------------------------ as one of several replicas
  const Store& store() const { return *store_; }
  shardpb::Position position() const { return applied_.Get(); }  // durable and searchable
  // As ShardWriter::Lead; makes the default collection if there is none.
  absl::Status Lead(uint64_t epoch, const shardpb::EpochStart& start);
  absl::Status Follow() { return writer_.Follow(); }  // as ShardWriter
  absl::Status Replay(const std::vector<shardpb::PullChangesResponse>& changes) { return writer_.Replay(changes); }
  // What follows a position in the log, at least one change if there is any, else about `bytes_max` of them, in parts
  // as Store::ReadReplicated gives them; waits until `deadline` for some. FAILED_PRECONDITION (BEHIND_LOG) if the log
  // has not that position.
  absl::Status ReadChanges(const shardpb::Position& after, size_t bytes_max, size_t part_bytes_max,
                           std::chrono::steady_clock::time_point deadline, const Store::PartVisitor& visit) const;
  // Store::Copy, of a state that everything acknowledged so far is in.
  absl::Status Copy(const std::string& folder, const std::function<absl::Status()>& go_on) const;
  // As Store::ComputeDigest.
  absl::StatusOr<Store::Digest> ComputeDigest(const CallContext& context) const;
  void KeepLog(const std::string& who, const shardpb::Position& from, std::chrono::steady_clock::time_point until) {
    store_->KeepLog(who, from, until);  // as there
  }
  void KeepLogOnFrom(const std::string& who, const shardpb::Position& from,
                     std::chrono::steady_clock::time_point until) {
    store_->KeepLogOnFrom(who, from, until);  // as there
  }
  // Gives back the disk space of what was deleted or replaced. Of the log a shard that has replicas keeps as many
  // changes as it is told to, for those that were away; one that has none needs but the newest.
  absl::Status Compact();
  // As Store::CancelCompaction.
  void CancelCompaction() { store_->CancelCompaction(); }
  // The store is to be replaced once nobody uses it any more. What would last long ends soon, with the error of
  // CheckOpen, a wait for a position with BEHIND_TOKEN, a compaction with CANCELLED (SHUTTING_DOWN). Any thread.
  void BeginClosing();
  // UNAVAILABLE (SHARD_UNAVAILABLE) after that. Who holds the shard for long asks now and then.
  absl::Status CheckOpen() const;

 private:
  LocalShard(std::unique_ptr<Store> store, const LocalShardOptions& options);
  absl::Status BuildIndexes();
  absl::Status MakeDefaultCollection();
  bool ToldReadOnly() const { return read_only_ || (read_only_for_all_ && read_only_for_all_()); }
  absl::Status CheckMayChange() const;
  absl::Status FillIndex(LiveCollection& collection) const;
  absl::StatusOr<shardpb::DocumentRecord> FindRecord(const LiveCollection& collection, const std::string& id,
                                                     const Store::Snapshot* at) const;
  absl::StatusOr<shardpb::DeleteResponse> CountDeletions(const shardpb::DeleteRequest& request,
                                                         const CallContext& context) const;
  void FillInfo(const shardpb::DocumentRecord& record, pb::DocumentInfo& info) const;
  // Nothing if rows are gone since the search.
  absl::StatusOr<bool> SearchOnce(const LiveCollection& collection, const shardpb::SearchRequest& request,
                                  const CompiledFilter* filter, const CallContext& context,
                                  shardpb::SearchResponse& response) const;

  const size_t reply_bytes_max_;
  const uint64_t log_changes_least_;
  const std::optional<pb::CollectionSpec> default_collection_;
  const std::unique_ptr<Store> store_;
  std::atomic<bool> read_only_ = false;
  std::atomic<bool> closing_ = false;
  const std::function<bool()> read_only_for_all_;
  LiveCollections collections_;
  AppliedPosition applied_;
  ShardWriter writer_;  // last: its thread uses all of the above
};

}  // namespace retro
