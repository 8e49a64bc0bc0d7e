#include "retriever_service/shard/local_shard.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/query/limits.h"
#include "retriever_service/shard/index_filler.h"
#include "retriever_service/shard/neighbour_fetch.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kListScanMax = 20'000;  // documents that one ListDocuments looks at
// A page ends with the document that passes this: metadata may be large, and the page is held in memory.
constexpr size_t kListBytesMax = size_t{2} << 20;
constexpr int kSearchAttemptsMax = 3;  // while rows vanish between search and fetch

void SetDuration(Clock::duration from, google::protobuf::Duration& to) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(from);
  to.set_seconds(seconds.count());
  to.set_nanos(static_cast<int32_t>(std::chrono::nanoseconds(from - seconds).count()));
}

absl::Status CheckBetween(std::string_view field, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(field, StrCat(value, " is not between ", least, " and ", most));
}

// Enough of a fingerprint for people to tell two apart.
std::string ShortName(const std::string& fingerprint) { return HexEncode(fingerprint).substr(0, 16); }

absl::Status Mismatch(Reason reason, const std::string& path, std::string_view what, std::string_view stored,
                      std::string_view own) {
  return Error(absl::StatusCode::kFailedPrecondition, reason,
               StrCat("the store in ", path, " was made with ", what, " ", stored, ", this server has ", own,
                      ": start it with the former, or name another folder"));
}

// Settings of a store that a server with other ones must not touch.
absl::Status CheckSpec(const std::string& path, const pb::CollectionSpec& stored, const pb::CollectionSpec& own) {
  if (stored.embedder_fingerprint() != own.embedder_fingerprint()) {
    return Mismatch(Reason::kEmbedderMismatch, path, "embedder", ShortName(stored.embedder_fingerprint()),
                    ShortName(own.embedder_fingerprint()));
  }
  if (stored.dimension() != own.dimension()) {
    return Mismatch(Reason::kEmbedderMismatch, path, "vectors of dimension", StrCat(stored.dimension()),
                    StrCat(own.dimension()));
  }
  if (stored.tokenizer_fingerprint() != own.tokenizer_fingerprint()) {
    return Mismatch(Reason::kTokenizerMismatch, path, "tokenizer", ShortName(stored.tokenizer_fingerprint()),
                    ShortName(own.tokenizer_fingerprint()));
  }
  if (stored.chunk_size() != own.chunk_size()) {
    return Mismatch(Reason::kTokenizerMismatch, path, "chunk size", StrCat(stored.chunk_size()),
                    StrCat(own.chunk_size()));
  }
  return absl::OkStatus();
}

// Whatever a router has checked already: an index takes them as they are.
absl::Status CheckOptions(const shardpb::SearchRequest& request) {
  RETRO_RETURN_IF_ERROR(CheckBetween("k", request.k(), 1, kNeighboursMax));
  const float level = request.effort().level();
  if (!(level >= 0 && level <= 1)) return FieldError("effort.level", "must be from 0 to 1");
  if (request.has_max_distance() && !(request.max_distance() > 0)) {
    return FieldError("max_distance", "must be a number above 0");
  }
  RETRO_RETURN_IF_ERROR(CheckQueryCount(request.queries_size()));
  for (int i = 0; i < request.queries_size(); ++i) {
    // An earlier router, in an upgrade, sends those of all queries with each.
    RETRO_RETURN_IF_ERROR(CheckIds(StrCat("queries[", i, "].exclude_document_ids"),
                                   request.queries(i).exclude_document_ids(), kExcludedPerQueryMax + kExcludedMax));
  }
  return CheckIds("exclude_document_ids", request.exclude_document_ids(), kExcludedMax);
}

absl::StatusOr<std::vector<IndexQuery>> MakeQueries(const shardpb::SearchRequest& request, uint32_t dimension) {
  std::vector<IndexQuery> queries;
  for (int i = 0; i < request.queries_size(); ++i) {
    const auto& values = request.queries(i).vector().values();
    const std::string field = StrCat("queries[", i, "].vector");
    if (static_cast<uint32_t>(values.size()) != dimension) {
      return FieldError(field, StrCat(values.size(), " numbers, the collection's vectors have ", dimension));
    }
    if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
      return FieldError(field, "a number is not finite");
    }
    const auto& excluded = request.queries(i).exclude_document_ids();
    queries.push_back({std::span(values.data(), values.size()), {excluded.begin(), excluded.end()}});
  }
  return queries;
}

}  // namespace

// ---------------------------------------------------------------- opening

LocalShard::LocalShard(std::unique_ptr<Store> store, const LocalShardOptions& options)
    : reply_bytes_max_(options.reply_bytes_max),
      log_changes_least_(options.replicated ? options.store.log_changes_max : 1),
      default_collection_(options.default_collection),
      store_(std::move(store)),
      read_only_for_all_(options.read_only),
      collections_(options.index),
      applied_(*store_, options.waiting_reads_max),
      writer_(*store_, collections_, applied_, /*accepts_changes=*/!options.replicated) {}

absl::StatusOr<std::unique_ptr<LocalShard>> LocalShard::Open(const LocalShardOptions& options) {
  RETRO_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, Store::Open(options.store));
  if (options.default_collection.has_value()) {  // before the work of building an index that could not be used
    const auto existing = store->FindCollection(options.default_collection->name());
    if (existing.has_value()) {
      RETRO_RETURN_IF_ERROR(CheckSpec(store->path(), existing->spec, *options.default_collection));
    }
  }
  std::unique_ptr<LocalShard> shard(new LocalShard(std::move(store), options));
  RETRO_RETURN_IF_ERROR(shard->BuildIndexes());
  if (!options.replicated) RETRO_RETURN_IF_ERROR(shard->MakeDefaultCollection());
  return shard;
}

absl::Status LocalShard::MakeDefaultCollection() {
  if (!default_collection_.has_value()) return absl::OkStatus();
  if (store_->FindCollection(default_collection_->name()).has_value()) return absl::OkStatus();
  shardpb::CreateCollectionRequest request;
  *request.mutable_spec() = *default_collection_;
  return writer_.CreateCollection(request, CallContext()).status();
}

absl::Status LocalShard::BuildIndexes() {
  RemoveOtherIndexes(*store_);
  for (const Collection& stored : store_->Collections()) {
    const Clock::time_point start = Clock::now();
    std::shared_ptr<LiveCollection> collection = collections_.Make(*store_, stored);
    RETRO_RETURN_IF_ERROR(FillIndex(*collection));
    const IndexStats stats = collection->index->Stats();
    spdlog::info("index of collection \"{}\" open: {} documents, {} chunks, {} segments, {:.2f} s", stored.spec.name(),
                 stats.documents, stats.chunks, stats.segments.size(),
                 std::chrono::duration<double>(Clock::now() - start).count());
    collections_.Add(std::move(collection));
  }
  return absl::OkStatus();
}

absl::Status LocalShard::FillIndex(LiveCollection& collection) const {
  IndexFiller filler(*store_, collection);
  RETRO_RETURN_IF_ERROR(filler.Run());
  collection.index->Filled();
  return absl::OkStatus();
}

absl::StatusOr<std::function<absl::Status(absl::Duration)>> LocalShard::SealIndex(const std::string& collection) const {
  RETRO_ASSIGN_OR_RETURN(const auto found, collections_.Find(collection));
  const uint64_t step = found->index->SealGrowing();
  return [found, step](absl::Duration most) { return found->index->WaitForSealing(step, most); };
}

absl::Status LocalShard::WaitForIndexes(size_t frozen_max, absl::Duration most) const {
  for (const auto& collection : collections_.All()) {
    RETRO_RETURN_IF_ERROR(collection->index->WaitForMaintenance(frozen_max, most));
  }
  return absl::OkStatus();
}

// ---------------------------------------------------------------- replicas

absl::Status LocalShard::Lead(uint64_t epoch, const shardpb::EpochStart& start) {
  RETRO_RETURN_IF_ERROR(writer_.Lead(epoch, start));
  return MakeDefaultCollection();
}

absl::Status LocalShard::ReadChanges(const shardpb::Position& after, size_t bytes_max, size_t part_bytes_max,
                                     Clock::time_point deadline, const Store::PartVisitor& visit) const {
  applied_.WaitForChange(after, deadline);
  const auto snapshot = store_->TakeSnapshot();
  RETRO_ASSIGN_OR_RETURN(const bool known, store_->HasChange(after, snapshot.get()));
  if (!known) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kBehindLog,
                 StrCat("the log has no change ", after.epoch(), "/", after.number(),
                        ": it was trimmed, or another primary's never came here; take a copy of the store"));
  }
  size_t bytes = 0;
  return store_->ScanLog(after, snapshot.get(), [&](const shardpb::Change& change) -> absl::StatusOr<bool> {
    RETRO_RETURN_IF_ERROR(
        store_->ReadReplicated(change, snapshot.get(), part_bytes_max, [&](shardpb::PullChangesResponse part) {
          bytes += part.ByteSizeLong();
          return visit(std::move(part));
        }));
    return bytes < bytes_max;
  });
}

absl::Status LocalShard::Compact() {
  RETRO_RETURN_IF_ERROR(writer_.TrimLogTo(log_changes_least_, [this] { return CheckOpen(); }));
  return store_->Compact();
}

absl::Status LocalShard::Copy(const std::string& folder, const std::function<absl::Status()>& go_on) const {
  return store_->Copy(folder, [&]() -> absl::Status {
    RETRO_RETURN_IF_ERROR(CheckOpen());
    return go_on();
  });
}

absl::StatusOr<Store::Digest> LocalShard::ComputeDigest(const CallContext& context) const {
  CallContext until_closing = context;
  until_closing.cancelled = [&] { return (context.cancelled && context.cancelled()) || closing_; };
  absl::StatusOr<Store::Digest> digest = store_->ComputeDigest(until_closing);
  if (!digest.ok()) RETRO_RETURN_IF_ERROR(CheckOpen());
  return digest;
}

void LocalShard::BeginClosing() {
  closing_ = true;
  applied_.Close();
  store_->CancelCompaction();
}

absl::Status LocalShard::CheckOpen() const {
  if (!closing_) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
               StrCat("shard ", store_->identity().shard, " takes a copy of another replica's store: repeat the call"));
}

// ---------------------------------------------------------------- search

absl::StatusOr<shardpb::SearchResponse> LocalShard::Search(const shardpb::SearchRequest& request,
                                                           const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckOptions(request));
  std::optional<CompiledFilter> filter;
  if (request.has_filter()) {
    RETRO_ASSIGN_OR_RETURN(filter, CompiledFilter::Compile(request.filter(), "filter"));
  }
  RETRO_RETURN_IF_ERROR(applied_.WaitFor(request.barrier(), context));  // which may make or drop the collection
  for (int attempt = 0; attempt < kSearchAttemptsMax; ++attempt) {
    RETRO_ASSIGN_OR_RETURN(const auto collection, collections_.Find(request.collection()));
    RETRO_RETURN_IF_ERROR(CheckEmbedder(*collection, request.embedder_fingerprint()));
    shardpb::SearchResponse response;
    RETRO_ASSIGN_OR_RETURN(const bool complete, SearchOnce(*collection, request,
                                                           filter.has_value() ? &*filter : nullptr, context, response));
    if (complete) return response;
  }
  return Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable,
               "documents are being replaced faster than they can be read: try again");
}

absl::StatusOr<bool> LocalShard::SearchOnce(const LiveCollection& collection, const shardpb::SearchRequest& request,
                                            const CompiledFilter* filter, const CallContext& context,
                                            shardpb::SearchResponse& response) const {
  RETRO_ASSIGN_OR_RETURN(const std::vector<IndexQuery> queries, MakeQueries(request, collection.spec.dimension()));
  IndexSearchOptions options;
  options.k = request.k();
  if (request.effort().has_level()) options.effort = request.effort().level();
  if (request.has_max_distance()) options.max_distance = request.max_distance();
  options.filter = filter;
  options.chunks_per_document_max = request.max_chunks_per_document();
  options.excluded_ids.insert(request.exclude_document_ids().begin(), request.exclude_document_ids().end());
  *response.mutable_position() = applied_.Get();  // before the search: it sees this much at least
  const Clock::time_point start = Clock::now();
  RETRO_ASSIGN_OR_RETURN(const IndexAnswer answer, collection.index->Search(queries, options, context));
  const Clock::time_point found = Clock::now();
  RETRO_ASSIGN_OR_RETURN(
      auto results, FetchNeighbours(*store_, collection.id, answer.hits, request.fields(), reply_bytes_max_, context));
  if (!results.has_value()) return false;
  for (pb::QueryResult& result : *results) *response.add_results() = std::move(result);
  response.set_index_generation(answer.generation);
  SetDuration(found - start, *response.mutable_search_time());
  SetDuration(Clock::now() - found, *response.mutable_fetch_time());
  return true;
}

// ---------------------------------------------------------------- changes

absl::StatusOr<shardpb::WriteResponse> LocalShard::Write(const shardpb::WriteRequest& request,
                                                         const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckMayChange());
  return writer_.Write(request, context);
}

absl::Status LocalShard::CheckMayChange() const {
  if (!ToldReadOnly()) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted, Reason::kReadOnly,
               StrCat("shard ", store_->identity().shard, " was made read-only by an operator: nothing was done"));
}

absl::StatusOr<shardpb::DeleteResponse> LocalShard::Delete(const shardpb::DeleteRequest& request,
                                                           const CallContext& context) {
  return DeleteInParts(request, context, [](const shardpb::Position&) { return absl::OkStatus(); });
}

absl::StatusOr<shardpb::DeleteResponse> LocalShard::DeleteInParts(const shardpb::DeleteRequest& request,
                                                                  const CallContext& context,
                                                                  const ShardWriter::Between& between) {
  if (request.dry_run()) return CountDeletions(request, context);
  RETRO_RETURN_IF_ERROR(CheckMayChange());
  return writer_.Delete(request, context, [&](const shardpb::Position& position) -> absl::Status {
    RETRO_RETURN_IF_ERROR(between(position));
    return CheckMayChange();
  });
}

absl::StatusOr<shardpb::DeleteResponse> LocalShard::CountDeletions(const shardpb::DeleteRequest& request,
                                                                   const CallContext& context) const {
  RETRO_ASSIGN_OR_RETURN(const auto collection, collections_.Find(request.collection()));
  shardpb::DeleteResponse response;
  *response.mutable_position() = applied_.Get();
  if (request.has_filter()) {
    RETRO_ASSIGN_OR_RETURN(const CompiledFilter filter, CompiledFilter::Compile(request.filter(), "filter"));
    RETRO_ASSIGN_OR_RETURN(const uint64_t count, collection->index->CountMatching(filter, context));
    response.set_deleted_count(count);
    return response;
  }
  const absl::flat_hash_set<std::string> ids(request.document_ids().begin(), request.document_ids().end());
  for (const std::string& id : ids) {
    RETRO_RETURN_IF_ERROR(context.Check());
    RETRO_ASSIGN_OR_RETURN(const auto record, store_->ReadDocument(collection->id, id, /*at=*/nullptr));
    if (record.has_value()) response.set_deleted_count(response.deleted_count() + 1);
  }
  return response;
}

absl::StatusOr<shardpb::CreateCollectionResponse> LocalShard::CreateCollection(
    const shardpb::CreateCollectionRequest& request, const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckMayChange());
  return writer_.CreateCollection(request, context);
}

absl::StatusOr<shardpb::DropCollectionResponse> LocalShard::DropCollection(
    const shardpb::DropCollectionRequest& request, const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckMayChange());
  return writer_.DropCollection(request, context);
}

// ---------------------------------------------------------------- reading

absl::StatusOr<shardpb::DocumentRecord> LocalShard::FindRecord(const LiveCollection& collection, const std::string& id,
                                                               const Store::Snapshot* at) const {
  RETRO_ASSIGN_OR_RETURN(auto record, store_->ReadDocument(collection.id, id, at));
  if (record.has_value()) return *std::move(record);
  RETRO_RETURN_IF_ERROR(collections_.Find(collection.spec.name()).status());  // it may have gone meanwhile
  return Error(absl::StatusCode::kNotFound, Reason::kNotFound,
               StrCat("there is no document \"", id, "\" in collection \"", collection.spec.name(), "\""));
}

void LocalShard::FillInfo(const shardpb::DocumentRecord& record, pb::DocumentInfo& info) const {
  info.set_content_hash(record.content_hash());
  info.set_chunk_count(record.chunks().count());
  info.set_text_bytes(record.text_bytes());
  *info.mutable_write_time() = record.write_time();
  info.set_shard(store_->identity().shard);
}

absl::StatusOr<shardpb::GetDocumentResponse> LocalShard::GetDocument(const shardpb::GetDocumentRequest& request,
                                                                     const CallContext& context) {
  RETRO_RETURN_IF_ERROR(applied_.WaitFor(request.barrier(), context));
  RETRO_ASSIGN_OR_RETURN(const auto collection, collections_.Find(request.collection()));
  const auto snapshot = store_->TakeSnapshot();
  RETRO_ASSIGN_OR_RETURN(shardpb::DocumentRecord record,
                         FindRecord(*collection, request.document_id(), snapshot.get()));
  RETRO_ASSIGN_OR_RETURN(std::string text, store_->ReadText(collection->id, record, snapshot.get()));
  shardpb::GetDocumentResponse response;
  FillInfo(record, *response.mutable_info());
  *response.mutable_document() = std::move(*record.mutable_document());
  response.mutable_document()->set_text(std::move(text));
  return response;
}

absl::StatusOr<shardpb::GetChunksResponse> LocalShard::GetChunks(const shardpb::GetChunksRequest& request,
                                                                 const CallContext& context) {
  RETRO_RETURN_IF_ERROR(CheckBetween("max_chunks", request.max_chunks(), 1, kChunksMax));
  RETRO_RETURN_IF_ERROR(applied_.WaitFor(request.barrier(), context));
  RETRO_ASSIGN_OR_RETURN(const auto collection, collections_.Find(request.collection()));
  const auto snapshot = store_->TakeSnapshot();
  RETRO_ASSIGN_OR_RETURN(const shardpb::DocumentRecord record,
                         FindRecord(*collection, request.document_id(), snapshot.get()));
  shardpb::GetChunksResponse response;
  response.set_chunk_count(record.chunks().count());
  std::vector<uint64_t> ids;
  for (uint64_t i = request.first_chunk(); i < record.chunks().count() && ids.size() < request.max_chunks(); ++i) {
    ids.push_back(ChunkIdAt(record.chunks().first_chunk_id(), i));
  }
  RETRO_ASSIGN_OR_RETURN(const auto rows, store_->ReadChunks(collection->id, ids, snapshot.get()));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].has_value()) {
      return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                   StrCat("the store in ", store_->path(), " is damaged: chunk ", ids[i], " is missing"));
    }
    FillChunk(ids[i], *rows[i], pb::NeighbourFields(), *response.add_chunks());
  }
  if (!request.include_vectors()) return response;
  RETRO_ASSIGN_OR_RETURN(const auto vectors, store_->ReadVectors(collection->id, ids, snapshot.get()));
  for (const std::string& halves : vectors) {
    auto& values = *response.add_vectors()->mutable_values();
    values.Resize(static_cast<int>(halves.size() / kHalfBytes), 0);
    FromHalf(halves, std::span(values.mutable_data(), values.size()));
  }
  return response;
}

absl::StatusOr<shardpb::ListDocumentsResponse> LocalShard::ListDocuments(const shardpb::ListDocumentsRequest& request,
                                                                         const CallContext& context) {
  RETRO_ASSIGN_OR_RETURN(const auto collection, collections_.Find(request.collection()));
  RETRO_RETURN_IF_ERROR(CheckBetween("page_size", request.page_size(), 1, kPageSizeMax));
  std::optional<CompiledFilter> filter;
  if (request.has_filter()) {
    RETRO_ASSIGN_OR_RETURN(filter, CompiledFilter::Compile(request.filter(), "filter"));
  }
  std::optional<Store::DocumentPlace> place;
  if (request.has_after()) place = {request.after().slot(), request.after().document_id()};
  shardpb::ListDocumentsResponse response;
  uint32_t looked_at = 0;
  size_t bytes = 0;
  RETRO_RETURN_IF_ERROR(store_->ScanDocuments(
      collection->id, place, /*at=*/nullptr,
      [&](uint32_t slot, const shardpb::DocumentRecord& record) -> absl::StatusOr<bool> {
        RETRO_RETURN_IF_ERROR(context.Check());
        const bool full = static_cast<uint32_t>(response.documents_size()) == request.page_size() ||
                          looked_at == kListScanMax || bytes > kListBytesMax;
        if (full) {
          response.mutable_next()->set_shard(store_->identity().shard);
          response.mutable_next()->set_slot(place->slot);
          response.mutable_next()->set_document_id(place->id);
          return false;
        }
        ++looked_at;
        place = {slot, record.document().id()};
        if (filter.has_value() && !filter->Matches(ToIndexedDocument(record))) return true;
        pb::DocumentSummary& summary = *response.add_documents();
        *summary.mutable_document() = record.document();
        FillInfo(record, *summary.mutable_info());
        bytes += record.ByteSizeLong();
        return true;
      }));
  return response;
}

absl::StatusOr<shardpb::StatsResponse> LocalShard::Stats(const shardpb::StatsRequest&, const CallContext&) {
  shardpb::StatsResponse response;
  pb::ShardStats& stats = *response.mutable_stats();
  const shardpb::Position position = applied_.Get();
  stats.set_shard(store_->identity().shard);
  stats.set_epoch(position.epoch());
  stats.set_position(position.number());
  stats.set_disk_bytes(store_->DiskBytes());
  stats.set_read_only(ToldReadOnly() || store_->read_only());
  const KeyValueMemory memory = store_->Memory();
  stats.mutable_memory()->set_cache_bytes(memory.cache);
  stats.mutable_memory()->set_write_buffer_bytes(memory.write_buffers);
  stats.mutable_memory()->set_table_bytes(memory.tables);
  for (const auto& collection : collections_.All()) {
    const IndexStats index = collection->index->Stats();
    pb::CollectionStats& to = *stats.add_collections();
    to.set_collection(collection->spec.name());
    to.set_documents(index.documents);
    to.set_chunks(index.chunks);
    to.set_text_bytes(index.text_bytes);
    to.set_index_state(index.state);
    to.set_index_generation(index.generation);
    if (index.measured_recall.has_value()) to.set_measured_recall(*index.measured_recall);
    for (const SegmentSize& size : index.segments) {
      pb::SegmentStats& segment = *to.add_segments();
      segment.set_kind(size.kind);
      segment.set_vectors(size.rows);
      segment.set_deleted(size.deleted);
      segment.set_memory_bytes(size.memory_bytes);
    }
    to.set_document_memory_bytes(index.document_bytes);
    to.set_building_memory_bytes(index.building_bytes);
  }
  return response;
}

absl::StatusOr<shardpb::GetShardInfoResponse> LocalShard::GetShardInfo(const shardpb::GetShardInfoRequest&,
                                                                       const CallContext&) {
  shardpb::GetShardInfoResponse response;
  const StoreIdentity& identity = store_->identity();
  response.set_store_id(identity.store_id);
  response.set_cluster(identity.cluster);
  response.set_shard(identity.shard);
  response.set_shard_count(identity.shard_count);
  response.set_role(shardpb::REPLICA_ROLE_PRIMARY);
  *response.mutable_position() = applied_.Get();
  *response.mutable_log_start() = store_->log_start();
  for (const auto& collection : collections_.All()) *response.add_collections() = collection->spec;
  response.set_layout_version(kLayoutVersion);
  return response;
}

}  // namespace retro
