#include "retriever_service/shard/grpc_shard.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/base/worker_pool.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "common/rpc/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/shard_service.h"

namespace retro {
namespace {

class GrpcShardTest : public testing::Test {
 protected:
  GrpcShardTest() : workers_(4, 16) {
    LocalShardOptions options;
    options.store.path =
        testing::TempDir() + "grpc_shard_test_" + testing::UnitTest::GetInstance()->current_test_info()->name();
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
    channel_ = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    shard_ = std::make_unique<GrpcShard>(channel_, address_);
  }
  ~GrpcShardTest() override {
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

  std::string path_, address_;
  Metrics metrics_;
  WorkerPool workers_;
  std::unique_ptr<LocalShard> local_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<GrpcShard> shard_;
  CallContext context_;
};

TEST_F(GrpcShardTest, AnswersAsTheShardBehindIt) {
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
  shardpb::SearchRequest search;
  search.set_k(1);
  for (const float x : {1.0F, 0.0F}) {
    if (search.queries().empty()) search.add_queries();
    search.mutable_queries(0)->mutable_vector()->add_values(x);
  }
  EXPECT_EQ(shard_->Search(search, context_)->results(0).neighbours(0).document_id(), "a");
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

TEST_F(GrpcShardTest, ErrorsKeepTheirReasons) {
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

TEST_F(GrpcShardTest, AServerThatIsGoneIsNamed) {
  server_->Stop();
  const absl::Status read = shard_->Stats({}, context_).status();
  EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(read), Reason::kShardUnavailable);
  EXPECT_THAT(std::string(MessageOf(read)), testing::HasSubstr(address_));
  EXPECT_EQ(ReasonOf(shard_->Write(OneDocument(), context_).status()), Reason::kWriteOutcomeUnknown);
}

TEST_F(GrpcShardTest, ACallerWhoLeavesEndsTheCall) {
  shardpb::GetDocumentRequest get;
  get.set_document_id("a");
  get.mutable_barrier()->mutable_position()->set_epoch(7);
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

TEST_F(GrpcShardTest, ReplicationSaysWhatItLacks) {
  const auto stub = shardpb::ShardService::NewStub(channel_);
  grpc::ClientContext context;
  const auto reader = stub->PullChanges(&context, shardpb::PullChangesRequest());
  shardpb::PullChangesResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReasonOf(status), Reason::kNotSupported);
}

}  // namespace
}  // namespace retro
