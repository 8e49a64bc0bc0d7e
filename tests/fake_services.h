// A retriever and a generator in the test's process: they record what they are asked and answer as told.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numbers>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/protocol.h"
#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/document/snapshot_name.h"
#include "common/rpc/status.h"
#include "retro/admin/v1/admin.grpc.pb.h"
#include "tests/call_order.h"

namespace retro::cli {

// Keeps documents in a map. Set the public members before the calls that they are about.
class FakeRetriever final : public pb::RetrieverService::Service {
 public:
  // Every unary call fails with it, unless OK.
  grpc::Status failure;
  grpc::Status delete_failure;    // of deletions that are no dry run
  int delete_failures_left = -1;  // so many times; -1 is always
  std::function<void()> on_delete_failure;
  // Of a shard that is away: a deletion that names one of them deletes the others alone, and fails.
  std::set<std::string> undeletable;
  std::string store_id = "store-1";
  uint32_t shard_count = 1;
  pb::IndexState index_state = pb::INDEX_STATE_EXACT;
  float measured_recall = 0;  // 0: never measured
  // Ingest acknowledges when so many are waiting, or when `expected_documents` have arrived.
  size_t acknowledge_at = 1;
  size_t expected_documents = 0;
  // So many acknowledgements from now on, then the stream breaks with `break_status`; -1 is never.
  int acknowledgements_until_break = -1;
  int breaks_left = 1;
  grpc::Status break_status{grpc::StatusCode::UNAVAILABLE, "gone"};
  // Called once a document has arrived and before it is acknowledged.
  std::function<void(const pb::IngestRequest&)> on_document;
  // Documents whose acknowledgement is an error; of those in `failing`, so many times.
  std::string refused_id;
  std::map<std::string, int> failing;
  pb::ItemError failing_error = UnavailableError();
  pb::SearchResponse search_response;
  bool read_only = false;

  // What came in. Read them when no call is under way.
  std::vector<std::vector<std::string>> streams;  // ids, by Ingest call
  size_t waiting_max = 0;                         // documents sent ahead of their acknowledgement
  std::map<std::string, pb::Document> documents;
  std::string collection;                    // that the last document was for
  std::set<std::string> collections = {""};  // that there are
  pb::SearchRequest search_request;
  std::vector<pb::DeleteDocumentsRequest> delete_requests;
  int get_calls = 0;  // of GetDocument
  pb::ListDocumentsRequest list_request;
  int list_calls = 0;

  grpc::Status GetInfo(grpc::ServerContext*, const pb::GetInfoRequest*, pb::GetInfoResponse* response) override {
    response->set_store_id(store_id);
    response->set_shard_count(shard_count);
    return failure;
  }

  grpc::Status Ingest(grpc::ServerContext*,
                      grpc::ServerReaderWriter<pb::IngestResponse, pb::IngestRequest>* stream) override {
    streams.emplace_back();
    std::vector<pb::IngestRequest> waiting;
    pb::IngestRequest request;
    while (stream->Read(&request)) {
      streams.back().push_back(request.write().document().id());
      collection = request.collection();
      if (on_document) on_document(request);
      waiting.push_back(request);
      waiting_max = std::max(waiting_max, waiting.size());
      if (waiting.size() < acknowledge_at && documents.size() + waiting.size() < expected_documents) continue;
      for (const pb::IngestRequest& one : waiting) {
        if (acknowledgements_until_break == 0 && breaks_left > 0) {
          --breaks_left;
          acknowledgements_until_break = -1;
          return break_status;
        }
        if (acknowledgements_until_break > 0) --acknowledgements_until_break;
        stream->Write(Store(one));
      }
      waiting.clear();
    }
    return grpc::Status::OK;
  }

  grpc::Status Search(grpc::ServerContext*, const pb::SearchRequest* request, pb::SearchResponse* response) override {
    search_request = *request;
    *response = search_response;
    return failure;
  }

  static pb::ItemError UnavailableError() {
    pb::ItemError error;
    error.set_code(grpc::StatusCode::UNAVAILABLE);
    error.set_message("shard 1 is away");
    error.set_reason("SHARD_UNAVAILABLE");
    return error;
  }

  grpc::Status GetDocument(grpc::ServerContext*, const pb::GetDocumentRequest* request,
                           pb::GetDocumentResponse* response) override {
    ++get_calls;
    if (!failure.ok()) return failure;
    const auto found = documents.find(request->document_id());
    if (found == documents.end()) return {grpc::StatusCode::NOT_FOUND, "no such document"};
    *response->mutable_document() = found->second;
    response->mutable_info()->set_chunk_count(3);
    return grpc::Status::OK;
  }

  grpc::Status GetChunks(grpc::ServerContext*, const pb::GetChunksRequest* request,
                         pb::GetChunksResponse* response) override {
    constexpr uint32_t kChunks = 5;
    constexpr uint32_t kPage = 2;  // fewer than asked for, as a server may
    for (uint32_t i = request->first_chunk(); i < std::min(kChunks, request->first_chunk() + kPage); ++i) {
      response->add_chunks()->set_chunk_number(i);
      response->mutable_chunks()->rbegin()->set_text(StrCat("chunk text ", i));
    }
    response->set_chunk_count(kChunks);
    return failure;
  }

  // Two documents a page, and an empty page in the middle.
  grpc::Status ListDocuments(grpc::ServerContext*, const pb::ListDocumentsRequest* request,
                             pb::ListDocumentsResponse* response) override {
    list_request = *request;
    ++list_calls;
    const size_t page = request->page_token().empty() ? 0 : std::stoul(request->page_token());
    const size_t first = page <= 1 ? page * 2 : (page - 1) * 2;
    size_t at = 0;
    for (const auto& [id, document] : documents) {
      if (page != 1 && at >= first && at < first + 2) response->add_documents()->mutable_document()->set_id(id);
      ++at;
    }
    if (page == 1 || first + 2 < documents.size()) response->set_next_page_token(std::to_string(page + 1));
    return failure;
  }

  grpc::Status DeleteDocuments(grpc::ServerContext*, const pb::DeleteDocumentsRequest* request,
                               pb::DeleteDocumentsResponse* response) override {
    delete_requests.push_back(*request);
    if (!delete_failure.ok() && !request->dry_run() && delete_failures_left != 0) {
      if (delete_failures_left > 0) --delete_failures_left;
      if (on_delete_failure) on_delete_failure();
      return delete_failure;
    }
    uint64_t count = request->has_filter() ? 42 : 0;
    bool failed = false;
    for (const std::string& id : request->document_ids()) {
      if (!request->dry_run() && undeletable.contains(id)) {
        failed = true;
      } else {
        count += request->dry_run() ? documents.count(id) : documents.erase(id);
      }
    }
    response->set_deleted_count(count);
    return failed ? ToGrpcStatus(Error(absl::StatusCode::kUnavailable, Reason::kShardUnavailable, "shard 1 is away"))
                  : failure;
  }

  grpc::Status CreateCollection(grpc::ServerContext*, const pb::CreateCollectionRequest* request,
                                pb::CreateCollectionResponse* response) override {
    collections.insert(request->spec().name());
    *response->mutable_spec() = request->spec();
    return failure;
  }
  grpc::Status ListCollections(grpc::ServerContext*, const pb::ListCollectionsRequest*,
                               pb::ListCollectionsResponse* response) override {
    for (const std::string& name : collections) response->add_collections()->set_name(name);
    return failure;
  }
  grpc::Status DeleteCollection(grpc::ServerContext*, const pb::DeleteCollectionRequest* request,
                                pb::DeleteCollectionResponse*) override {
    if (collections.erase(request->name()) == 0) return {grpc::StatusCode::NOT_FOUND, "no such collection"};
    return failure;
  }

  grpc::Status Stats(grpc::ServerContext*, const pb::StatsRequest*, pb::StatsResponse* response) override {
    pb::ShardStats& shard = *response->add_shards();
    shard.set_disk_bytes(5'000'000);
    shard.set_read_only(read_only);
    pb::CollectionStats& stats = *shard.add_collections();
    stats.set_documents(1234);
    stats.set_chunks(56789);
    stats.set_index_state(index_state);
    if (measured_recall > 0) stats.set_measured_recall(measured_recall);
    return failure;
  }

 private:
  pb::IngestResponse Store(const pb::IngestRequest& request) {
    const pb::Document& document = request.write().document();
    pb::IngestResponse response;
    response.set_sequence(request.sequence());
    pb::DocumentResult& result = *response.mutable_result();
    result.set_document_id(document.id());
    if (document.id() == refused_id) {
      result.mutable_error()->set_code(grpc::StatusCode::INVALID_ARGUMENT);
      result.mutable_error()->set_message("the text is odd");
      result.mutable_error()->set_reason("INVALID_FIELD");
      result.mutable_error()->set_field("document.text");
      return response;
    }
    if (int& left = failing[document.id()]; left > 0) {
      --left;
      *result.mutable_error() = failing_error;
      return response;
    }
    const auto found = documents.find(document.id());
    result.set_chunk_count(2);
    if (found == documents.end()) {
      result.set_outcome(pb::WRITE_OUTCOME_CREATED);
    } else if (found->second.text() == document.text()) {
      result.set_outcome(pb::WRITE_OUTCOME_UNCHANGED);
    } else {
      result.set_outcome(pb::WRITE_OUTCOME_REPLACED);
    }
    documents[document.id()] = document;
    return response;
  }
};

// Sends the events it is given; scores each token with one bit.
class FakeGenerator final : public gen::GeneratorService::Service {
 public:
  static constexpr uint32_t kContextLength = 256;
  static constexpr uint32_t kChunkSize = 64;
  size_t bytes_per_token = 4;
  std::vector<gen::ScoreRequest> score_requests;  // with one item each
  grpc::Status score_failure;                     // of the third one on

  grpc::Status GetModel(grpc::ServerContext*, const gen::GetModelRequest*, gen::GetModelResponse* model) override {
    model->set_context_length(kContextLength);
    model->set_chunk_size(kChunkSize);
    model->set_version("0.0.1");
    return grpc::Status::OK;
  }

  grpc::Status Score(grpc::ServerContext*, const gen::ScoreRequest* asked, gen::ScoreResponse* response) override {
    score_requests.push_back(*asked);
    if (score_requests.size() > 2 && !score_failure.ok()) return score_failure;
    const gen::ScoreItem& item = asked->items(0);
    const std::string& text = item.continuation_text();
    const size_t context = std::max<size_t>(1, static_cast<size_t>(item.context_tokens().ids_size()));
    gen::ScoreResult& result = *response->add_results();
    for (size_t at = 0; at < text.size(); at += bytes_per_token) {
      result.add_tokens(next_token_++);
      result.add_logprobs(-std::numbers::ln2_v<float>);
      result.add_greedy(at == 0);
      result.add_raw(text.substr(at, bytes_per_token));
    }
    if (context + static_cast<size_t>(result.tokens_size()) > kContextLength) {
      return ToGrpcStatus(Error(absl::StatusCode::kInvalidArgument, Reason::kContextTooLong, "items[0]: too long"));
    }
    result.set_total_logprob(-std::numbers::ln2 * result.tokens_size());
    gen::RetrievalEvent& retrieval = *result.add_retrievals();
    retrieval.set_degradation(gen::DEGRADATION_NONE);
    retrieval.mutable_neighbours()->add_neighbours();
    return grpc::Status::OK;
  }

  std::vector<gen::GenerateResponse> events;
  grpc::Status ending;
  gen::GenerateRequest request;

  grpc::Status Generate(grpc::ServerContext*, const gen::GenerateRequest* asked,
                        grpc::ServerWriter<gen::GenerateResponse>* stream) override {
    request = *asked;
    for (const gen::GenerateResponse& event : events) stream->Write(event);
    return ending;
  }

 private:
  int32_t next_token_ = 1;
};

// Tells what replicas there are, and keeps snapshots in a list.
class FakeAdmin final : public admin::v1::AdminService::Service {
 public:
  grpc::Status ListReplicas(grpc::ServerContext*, const admin::v1::ListReplicasRequest*,
                            admin::v1::ListReplicasResponse* response) override {
    *response->mutable_replicas() = {replicas.begin(), replicas.end()};
    return failure;
  }

  grpc::Status Verify(grpc::ServerContext*, const admin::v1::VerifyRequest* request,
                      admin::v1::VerifyResponse* response) override {
    const auto asked = contents.find(request->replica());
    if (asked == contents.end()) return {grpc::StatusCode::UNAVAILABLE, "it is down"};
    *response = asked->second;
    if (moves == request->replica()) asked->second.set_position(asked->second.position() + 1);
    return failure;
  }

  grpc::Status CreateSnapshot(grpc::ServerContext*, const admin::v1::CreateSnapshotRequest* request,
                              admin::v1::CreateSnapshotResponse* response) override {
    const bool fails = request->shard() == failing_shard;
    response->mutable_operation()->set_operation_id(fails ? "fails" : "succeeds");
    response->set_name(StrCat(SnapshotNamePrefix("store-1", request->shard()), now));
    if (!fails && lists_what_it_makes) AddSnapshot(response->name(), request->shard(), now);
    return failure;
  }
  grpc::Status GetOperation(grpc::ServerContext*, const admin::v1::GetOperationRequest* request,
                            admin::v1::GetOperationResponse* response) override {
    if (asked_elsewhere > 0) {
      --asked_elsewhere;
      return {grpc::StatusCode::NOT_FOUND, "another router's"};
    }
    admin::v1::Operation& operation = *response->mutable_operation();
    const bool fails = request->operation_id() == "fails";
    operation.set_state(fails ? admin::v1::OPERATION_STATE_FAILED : admin::v1::OPERATION_STATE_SUCCEEDED);
    if (fails) operation.set_message("the disk is full");
    return failure;
  }
  grpc::Status ListSnapshots(grpc::ServerContext*, const admin::v1::ListSnapshotsRequest*,
                             admin::v1::ListSnapshotsResponse* response) override {
    *response->mutable_snapshots() = {snapshots.begin(), snapshots.end()};
    return failure;
  }
  grpc::Status DeleteSnapshot(grpc::ServerContext*, const admin::v1::DeleteSnapshotRequest* request,
                              admin::v1::DeleteSnapshotResponse*) override {
    const auto named = [&](const admin::v1::Snapshot& snapshot) { return snapshot.name() == request->name(); };
    if (std::erase_if(snapshots, named) == 0) return {grpc::StatusCode::NOT_FOUND, "no such snapshot"};
    return failure;
  }

  admin::v1::Snapshot& AddSnapshot(const std::string& name, uint32_t shard, int time) {
    admin::v1::Snapshot snapshot;
    snapshot.set_name(name);
    snapshot.set_shard(shard);
    snapshot.mutable_create_time()->set_seconds(time);
    const auto older = [time](const admin::v1::Snapshot& other) { return other.create_time().seconds() <= time; };
    return *snapshots.insert(std::find_if(snapshots.begin(), snapshots.end(), older), snapshot);
  }

  std::vector<admin::v1::Replica> replicas;
  std::map<std::string, admin::v1::VerifyResponse> contents;  // by replica
  std::string moves;                                          // the replica that is written to whenever it is asked
  std::vector<admin::v1::Snapshot> snapshots;                 // newest first
  int now = 100;                                              // when snapshots are made
  std::optional<uint32_t> failing_shard;
  bool lists_what_it_makes = true;
  int asked_elsewhere = 0;  // times that an operation is asked for as by a proxy that chose another router
  grpc::Status failure;
};

// All of them behind one loopback port.
class FakeServer {
 public:
  explicit FakeServer(const std::shared_ptr<grpc::ServerCredentials>& credentials = grpc::InsecureServerCredentials()) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    builder.RegisterService(&retriever);
    builder.RegisterService(&admin);
    builder.RegisterService(&generator);
    builder.SetMaxReceiveMessageSize(-1);
    OrderedHandlers::Watch(builder);
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return StrCat("127.0.0.1:", port_); }
  grpc::HealthCheckServiceInterface& health() { return *server_->GetHealthCheckService(); }

  FakeRetriever retriever;
  FakeGenerator generator;
  FakeAdmin admin;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace retro::cli
