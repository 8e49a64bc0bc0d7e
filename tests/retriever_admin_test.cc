// What operators ask of a standalone retriever, over gRPC.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/retriever.h"
#include "retro/admin/v1/admin.grpc.pb.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/temporary_folder.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

namespace adminpb = admin::v1;
namespace pb = retriever::v1;

constexpr int kDimension = 32;

class RetrieverAdminTest : public testing::Test {
 protected:
  void SetUp() override {
    RetrieverOptions options;
    options.data = folder_ / "store";
    options.tokenizer = SourcePath("common/tokenizer/retro-16k.model");
    auto retriever = Retriever::Start(options, {}, std::make_unique<HashEmbedder>(kDimension), metrics_);
    ASSERT_TRUE(retriever.ok()) << retriever.status();
    retriever_ = *std::move(retriever);
    const auto channel =
        grpc::CreateChannel(StrCat("127.0.0.1:", retriever_->port()), grpc::InsecureChannelCredentials());
    stub_ = pb::RetrieverService::NewStub(channel);
    admin_ = adminpb::AdminService::NewStub(channel);
    pb::UpsertDocumentsRequest request;
    auto* document = request.add_writes()->mutable_document();
    document->set_id("sea");
    document->set_text("The ocean is wide.");
    grpc::ClientContext context;
    pb::UpsertDocumentsResponse response;
    ASSERT_TRUE(stub_->UpsertDocuments(&context, request, &response).ok());
  }
  void TearDown() override {
    if (retriever_ != nullptr) retriever_->Stop();
  }

  pb::IndexState State() {
    grpc::ClientContext context;
    pb::StatsResponse stats;
    EXPECT_TRUE(stub_->Stats(&context, {}, &stats).ok());
    return stats.shards(0).collections(0).index_state();
  }
  absl::StatusOr<adminpb::Operation> Train(const std::string& collection) {
    grpc::ClientContext context;
    adminpb::TrainIndexRequest request;
    request.set_collection(collection);
    adminpb::TrainIndexResponse begun;
    const grpc::Status status = admin_->TrainIndex(&context, request, &begun);
    if (!status.ok()) return FromGrpcStatus(status);
    return begun.operation();
  }
  adminpb::Operation Await(const std::string& operation_id) {
    adminpb::GetOperationRequest request;
    request.set_operation_id(operation_id);
    while (true) {
      grpc::ClientContext context;
      adminpb::GetOperationResponse response;
      EXPECT_TRUE(admin_->GetOperation(&context, request, &response).ok());
      if (response.operation().state() != adminpb::OPERATION_STATE_RUNNING) return response.operation();
    }
  }

  TemporaryFolder folder_;
  Metrics metrics_;
  std::unique_ptr<Retriever> retriever_;
  std::unique_ptr<pb::RetrieverService::Stub> stub_;
  std::unique_ptr<adminpb::AdminService::Stub> admin_;
};

TEST_F(RetrieverAdminTest, AnIndexIsTrainedOnCommand) {
  EXPECT_EQ(State(), pb::INDEX_STATE_EXACT);
  const auto begun = Train("");
  ASSERT_TRUE(begun.ok()) << begun.status();
  const adminpb::Operation operation = Await(begun->operation_id());
  EXPECT_EQ(operation.state(), adminpb::OPERATION_STATE_SUCCEEDED) << operation.message();
  EXPECT_EQ(State(), pb::INDEX_STATE_READY);

  pb::SearchRequest request;
  request.add_queries()->set_text("The ocean is wide.");
  grpc::ClientContext context;
  pb::SearchResponse response;
  ASSERT_TRUE(stub_->Search(&context, request, &response).ok());
  ASSERT_EQ(response.results(0).neighbours_size(), 1);
  EXPECT_EQ(response.results(0).neighbours(0).document_id(), "sea");

  const auto again = Train("");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Await(again->operation_id()).state(), adminpb::OPERATION_STATE_SUCCEEDED) << "nothing is left to do";
  EXPECT_EQ(ReasonOf(Train("none").status()), Reason::kCollectionNotFound);
}

TEST_F(RetrieverAdminTest, AStoreOfItsOwnIsItsOnlyReplica) {
  grpc::ClientContext context;
  adminpb::ListReplicasResponse response;
  ASSERT_TRUE(admin_->ListReplicas(&context, {}, &response).ok());
  ASSERT_EQ(response.replicas_size(), 1);
  const adminpb::Replica& replica = response.replicas(0);
  EXPECT_TRUE(replica.primary() && replica.in_sync() && replica.reachable());
  EXPECT_EQ(replica.position(), 2u) << "the collection, the document";
}

}  // namespace
}  // namespace retro
