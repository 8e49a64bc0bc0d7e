#include "retriever_service/shard/remote_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/base/worker_pool.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "common/rpc/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/rpc/unary.h"
#include "retriever_service/shard/admin.h"
#include "retriever_service/shard/admin_service.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/message_parts.h"
#include "retriever_service/shard/replica_call.h"
#include "retriever_service/shard/shard_channel.h"
#include "retriever_service/shard/shard_service.h"
#include "retro/admin/v1/admin.grpc.pb.h"

namespace retro {
namespace {

class RemoteShardTest : public testing::Test {
 protected:
  RemoteShardTest() : workers_(4, 16) {
    LocalShardOptions options;
    options.store.path =
        testing::TempDir() + "remote_shard_test_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(options.store.path);
    path_ = options.store.path;
    options.default_collection.emplace().set_dimension(2);
    auto local = LocalShard::Open(options);
    EXPECT_TRUE(local.ok()) << local.status();
    local_ = *std::move(local);
    service_ = MakeShardService(*local_, workers_, metrics_);
    auto server = RpcServer::Start({}, {service_.get()});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    address_ = StrCat("127.0.0.1:", server_->port());
    ClusterConfig config;
    config.store_id = local_->GetShardInfo({}, {})->store_id();
    ShardConfig& only = config.shards.emplace_back();
    only.epoch = local_->position().epoch();
    only.primary = "a";
    only.in_sync = {"a"};
    only.replicas = {{"a", address_}};
    config_ = std::make_shared<const ClusterConfig>(config);
    shard_ = std::make_unique<RemoteShard>(0, ClusterView{[this] { return config_; }, [] {}, {}}, client_metrics_);
  }
  ~RemoteShardTest() override {
    shard_.reset();
    server_.reset();
    local_.reset();
    std::filesystem::remove_all(path_);
  }

  static shardpb::WriteRequest OneDocument() {
    shardpb::WriteRequest request;
    shardpb::DocumentChange& change = *request.add_changes();
    change.mutable_document()->set_id("a");
    change.mutable_document()->set_text("text");
    change.set_content_hash(ContentHash(change.document()));
    change.set_text_hash(TextHash("text"));
    change.add_chunks()->set_end(4);
    change.mutable_chunks(0)->set_vector_fp16(ToHalf(std::vector<float>{1, 0}));
    return request;
  }

  static shardpb::SearchRequest NearestOne() {
    shardpb::SearchRequest request;
    request.set_k(1);
    auto& vector = *request.add_queries()->mutable_vector();
    vector.add_values(1);
    vector.add_values(0);
    return request;
  }

  std::string path_, address_;
  Metrics metrics_;
  WorkerPool workers_;
  std::unique_ptr<LocalShard> local_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<const ClusterConfig> config_;
  Metrics client_metrics_;
  std::unique_ptr<RemoteShard> shard_;
  CallContext context_;
};

TEST_F(RemoteShardTest, AnswersAsTheShardBehindIt) {
  const auto written = shard_->Write(OneDocument(), context_);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->results(0).outcome(), shardpb::CHANGE_OUTCOME_CREATED);
  EXPECT_EQ(written->position().number(), 2u);
  shardpb::GetDocumentRequest get;
  get.set_document_id("a");
  EXPECT_EQ(shard_->GetDocument(get, context_)->SerializeAsString(),
            local_->GetDocument(get, context_)->SerializeAsString());
  shardpb::GetChunksRequest chunks;
  chunks.set_document_id("a");
  chunks.set_max_chunks(1);
  EXPECT_EQ(shard_->GetChunks(chunks, context_)->chunks(0).text(), "text");
  EXPECT_EQ(shard_->Search(NearestOne(), context_)->results(0).neighbours(0).document_id(), "a");
  shardpb::ListDocumentsRequest list;
  list.set_page_size(10);
  EXPECT_EQ(shard_->ListDocuments(list, context_)->documents_size(), 1);
  EXPECT_EQ(shard_->Stats({}, context_)->stats().collections(0).documents(), 1u);
  EXPECT_EQ(shard_->GetShardInfo({}, context_)->SerializeAsString(),
            local_->GetShardInfo({}, context_)->SerializeAsString());
  shardpb::DeleteRequest deletion;
  deletion.add_document_ids("a");
  EXPECT_EQ(shard_->Delete(deletion, context_)->deleted_count(), 1u);
}

TEST_F(RemoteShardTest, ARequestInPartsIsTheSame) {
  shardpb::WriteRequest request;
  request.set_collection("c");
  request.set_epoch(7);
  for (const int chunks : {0, 1, 50, 3}) {
    shardpb::DocumentChange& change = *request.add_changes();
    change.mutable_document()->set_id(StrCat("d", chunks));
    change.set_content_hash("hash");
    for (int i = 0; i < chunks; ++i) {
      change.add_chunks()->set_end(i + 1);
      change.mutable_chunks(i)->set_vector_fp16(std::string(10, static_cast<char>('a' + i % 26)));
    }
  }
  request.mutable_changes(1)->set_any_version(true);
  WriteParts parts(request, /*epoch=*/7, /*bytes_max=*/100);
  shardpb::WriteRequest joined;
  int count = 0;
  for (auto part = parts.Next(); part.has_value(); part = parts.Next(), ++count) {
    EXPECT_LE(part->ByteSizeLong(), 150u);
    ASSERT_TRUE(AddPart(*std::move(part), joined).ok());
  }
  EXPECT_GT(count, 8);
  EXPECT_EQ(joined.SerializeAsString(), request.SerializeAsString());
  shardpb::WriteRequest lost;
  lost.add_changes()->add_chunks();
  shardpb::WriteRequest empty;
  EXPECT_EQ(ReasonOf(AddPart(lost, empty)), Reason::kInvalidField);
}

TEST_F(RemoteShardTest, ADocumentLargerThanAMessageIsWritten) {
  shardpb::WriteRequest request = OneDocument();
  shardpb::DocumentChange& change = *request.mutable_changes(0);
  std::string& text = *change.mutable_document()->mutable_text();
  text.clear();
  change.clear_chunks();
  constexpr int kTokensAChunk = 640;  // of 10 bytes each: it is they that make it large
  while (request.changes(0).chunks_size() < 11'000) {
    text += "text";
    shardpb::ChunkContent& chunk = *change.add_chunks();
    chunk.set_end(text.size());
    for (int i = 0; i < kTokensAChunk; ++i) chunk.add_token_ids(-1);
    chunk.set_vector_fp16(ToHalf(std::vector<float>{1, 0}));
  }
  change.set_content_hash(ContentHash(change.document()));
  change.set_text_hash(TextHash(text));
  ASSERT_GT(request.ByteSizeLong(), size_t{64} << 20);
  const auto written = shard_->Write(request, context_);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->results(0).chunk_count(), 11'000u) << written->DebugString();
}

TEST_F(RemoteShardTest, AnswersTakeMemoryAsTheyGrow) {
  ASSERT_TRUE(shard_->Write(OneDocument(), context_).ok());
  const shardpb::SearchRequest search = NearestOne();
  std::atomic<size_t> held = 0;
  CallContext context;
  context.hold = [&held](size_t bytes) {
    held += bytes;
    return true;
  };
  const auto here = local_->Search(search, context);
  ASSERT_TRUE(here.ok()) << here.status();
  EXPECT_EQ(held, here->results(0).neighbours(0).ByteSizeLong());
  held = 0;
  const auto there = shard_->Search(search, context);
  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_EQ(held, there->ByteSizeLong());
  context.hold = [](size_t) { return false; };
  EXPECT_EQ(ReasonOf(local_->Search(search, context).status()), Reason::kQueueFull);
  EXPECT_EQ(ReasonOf(shard_->Search(search, context).status()), Reason::kQueueFull);
}

TEST_F(RemoteShardTest, ErrorsKeepTheirReasons) {
  shardpb::GetDocumentRequest get;
  get.set_document_id("none");
  absl::Status status = shard_->GetDocument(get, context_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(status), Reason::kNotFound);
  get.mutable_barrier()->mutable_position()->set_epoch(7);
  EXPECT_EQ(ReasonOf(shard_->GetDocument(get, context_).status()), Reason::kBehindToken);
  status = shard_->Search({}, context_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "k");
}

TEST_F(RemoteShardTest, AServerThatIsGoneIsNamed) {
  EXPECT_TRUE(shard_->Stats({}, context_).ok());
  server_->Stop();
  const absl::Status read = shard_->Stats({}, context_).status();
  EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(read), Reason::kShardUnavailable);
  EXPECT_THAT(std::string(MessageOf(read)), testing::HasSubstr(address_));
  EXPECT_THAT(std::string(MessageOf(read)), testing::HasSubstr("shard 0"));
  // A change may have reached it, unless it is known that nobody listens.
  absl::Status write;
  do {
    write = shard_->Write(OneDocument(), context_).status();
    EXPECT_EQ(write.code(), absl::StatusCode::kUnavailable);
  } while (ReasonOf(write) == Reason::kWriteOutcomeUnknown);
  EXPECT_EQ(ReasonOf(write), Reason::kShardUnavailable);
  EXPECT_THAT(std::string(MessageOf(write)), testing::HasSubstr("nothing was done"));
  while (shard_->available()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

TEST_F(RemoteShardTest, ACallerWhoLeavesEndsTheCall) {
  shardpb::GetDocumentRequest get;
  get.set_document_id("a");
  get.mutable_barrier()->mutable_position()->set_epoch(config_->shards[0].epoch);
  get.mutable_barrier()->mutable_position()->set_number(1'000'000);
  get.mutable_barrier()->mutable_max_wait()->set_seconds(600);
  std::atomic<bool> gone = false;
  CallContext leaving;
  leaving.cancelled = [&] { return gone.load(); };
  std::thread leaver([&] { gone = true; });
  EXPECT_EQ(shard_->GetDocument(get, leaving).status().code(), absl::StatusCode::kCancelled);
  leaver.join();
  CallContext hurried;
  hurried.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  EXPECT_EQ(shard_->GetDocument(get, hurried).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RemoteShardTest, NobodyWaitsForAnEpochThatHasNotBegun) {
  shardpb::GetDocumentRequest get;
  get.set_document_id("a");
  get.mutable_barrier()->mutable_position()->set_epoch(config_->shards[0].epoch + 1);
  get.mutable_barrier()->mutable_max_wait()->set_seconds(600);
  const absl::Status status = shard_->GetDocument(get, context_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), Reason::kBehindToken);
  EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr("cluster file"));
}

TEST_F(RemoteShardTest, ReplicationSaysWhatItLacks) {
  const auto stub = shardpb::ShardService::NewStub(MakeShardChannel(address_));
  grpc::ClientContext context;
  const auto reader = stub->PullChanges(&context, shardpb::PullChangesRequest());
  shardpb::PullChangesResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReasonOf(status), Reason::kNotSupported);
}

TEST_F(RemoteShardTest, ACallMayLastAsLongAsItsCallerWaits) {
  CallContext patient;
  patient.deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
  grpc::ClientContext context;
  PrepareCall(patient, context);
  EXPECT_GT(context.deadline(), std::chrono::system_clock::now() + std::chrono::minutes(50));
}

// Of documents that are sent in parts and never end; a search needs little, and has that for itself.
TEST_F(RemoteShardTest, WritesThatWaitTakeNoMemoryOfReads) {
  UnaryOptions options;
  options.bytes_max = 1'000'000;
  WorkerPool workers(4, 16);
  Metrics metrics;
  const auto service = MakeShardService(*local_, workers, metrics, options);
  auto server = *RpcServer::Start({}, {service.get()});
  const auto stub = shardpb::ShardService::NewStub(MakeShardChannel(StrCat("127.0.0.1:", server->port())));
  shardpb::WriteRequest part;
  part.add_changes()->mutable_document()->set_text(std::string(300'000, 'x'));
  using Writer = grpc::ClientWriter<shardpb::WriteRequest>;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<Writer>> writers;
  shardpb::WriteResponse response;
  for (int i = 0; i < 4; ++i) {
    writers.push_back(
        stub->WriteInParts(contexts.emplace_back(std::make_unique<grpc::ClientContext>()).get(), &response));
    writers.back()->Write(part);
  }
  const auto held = [&](const std::string& queue) {
    metrics.Collect();
    return metrics.Gauge("retro_request_bytes", "", {{"queue", queue}}).Value();
  };
  while (held("reads") + held("writes") < 900'000) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(held("reads"), 0);
  grpc::ClientContext context;
  EXPECT_EQ(ReasonOf(FromGrpcStatus(stub->Write(&context, part, &response))), Reason::kQueueFull);
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext reading;
    shardpb::SearchResponse found;
    const grpc::Status status = stub->Search(&reading, NearestOne(), &found);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  for (const auto& each : contexts) each->TryCancel();
  for (const auto& writer : writers) writer->Finish();
  while (held("reads") + held("writes") > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server->Stop();
}

// All its workers are at work for long, and calls wait: it must not be taken for one that hangs.
TEST_F(RemoteShardTest, ABusyOneSaysHowItIs) {
  std::atomic<bool> may_end = false;
  const absl::Cleanup let_go = [&] {  // all of them, while there is something to look at
    may_end = true;
    workers_.Stop();
  };
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(workers_.Submit([&] {
      while (!may_end) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }));
  }
  std::atomic<bool> ended = false;
  std::thread caller([&] {
    shardpb::ListDocumentsRequest list;
    list.set_page_size(1);
    EXPECT_TRUE(shard_->ListDocuments(list, context_).ok());
    ended = true;
  });
  const prometheus::Counter& answers =
      metrics_.Counter("retro_requests_total", "", {{"method", "shard.GetShardInfo"}, {"code", "OK"}});
  const double enough = answers.Value() + 15;  // in three seconds
  while (answers.Value() < enough && !ended) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(ended);
  EXPECT_TRUE(shard_->available());
  may_end = true;
  caller.join();
}

// Verifies until it may end.
class VerifyingAdmin final : public Admin {
 public:
  absl::StatusOr<adminpb::VerifyResponse> Verify(const adminpb::VerifyRequest&, const CallContext&) override {
    verifying = true;
    while (!may_end) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return adminpb::VerifyResponse();
  }
  // Of shard 1 it waits for a replica that does not answer.
  absl::StatusOr<adminpb::PromoteResponse> Promote(const adminpb::PromoteRequest& request,
                                                   const CallContext&) override {
    promoting = promoting || request.shard() == 1;
    while (request.shard() == 1 && !may_end) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return adminpb::PromoteResponse();
  }
  std::atomic<bool> verifying = false, promoting = false, may_end = false;
};

TEST_F(RemoteShardTest, APromotionWaitsForNoChecksumAndNoOtherPromotion) {
  VerifyingAdmin admin;
  WorkerPool workers(1, 4);
  UnaryRunner runner(workers, metrics_, UnaryOptions());
  const auto service = MakeAdminService(admin, runner);
  auto server = *RpcServer::Start({}, {service.get()});
  const auto stub = adminpb::AdminService::NewStub(MakeShardChannel(StrCat("127.0.0.1:", server->port())));
  std::thread verification([&] {
    grpc::ClientContext context;
    adminpb::VerifyResponse response;
    EXPECT_TRUE(stub->Verify(&context, {}, &response).ok());
  });
  std::thread promotion([&] {
    grpc::ClientContext context;
    adminpb::PromoteRequest request;
    request.set_shard(1);
    adminpb::PromoteResponse response;
    EXPECT_TRUE(stub->Promote(&context, request, &response).ok());
  });
  while (!admin.verifying || !admin.promoting) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  adminpb::PromoteResponse response;
  EXPECT_TRUE(stub->Promote(&context, {}, &response).ok());
  admin.may_end = true;
  verification.join();
  promotion.join();
  server->Stop();
}

TEST_F(RemoteShardTest, AnotherStoresShardIsRefused) {
  ClusterConfig other = *config_;
  other.store_id = "another one's 16";
  const auto config = std::make_shared<const ClusterConfig>(other);
  Metrics metrics;
  RemoteShard shard(0, ClusterView{[&] { return config; }, [] {}, {}}, metrics);
  absl::Status status;
  do {  // until it has been asked who it is
    status = shard.Stats({}, context_).status();
  } while (status.ok());
  EXPECT_EQ(ReasonOf(status), Reason::kForeignStore);
  EXPECT_EQ(ReasonOf(shard.Write(OneDocument(), context_).status()), Reason::kForeignStore);
}

}  // namespace
}  // namespace retro
