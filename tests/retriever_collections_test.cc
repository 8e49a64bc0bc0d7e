// Collections over gRPC, of a standalone retriever with a hash embedder.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <set>
#include <string>

#include "common/base/error.h"
#include "common/rpc/status.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/retriever.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/temporary_folder.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

namespace pb = retriever::v1;

constexpr int kDimension = 32;

class RetrieverCollectionsTest : public testing::Test {
 protected:
  RetrieverCollectionsTest() {
    spdlog::set_level(spdlog::level::off);
    Start();
  }
  ~RetrieverCollectionsTest() override { retriever_->Stop(); }

  void Start() {
    RetrieverOptions options;
    options.data = folder_ / "store";
    options.tokenizer = SourcePath("common/tokenizer/retro-16k.model");
    metrics_ = std::make_unique<Metrics>();
    auto retriever = Retriever::Start(options, ServerOptions(), std::make_unique<HashEmbedder>(kDimension), *metrics_);
    ASSERT_TRUE(retriever.ok()) << retriever.status();
    retriever_ = *std::move(retriever);
    stub_ = pb::RetrieverService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(retriever_->port()), grpc::InsecureChannelCredentials()));
  }
  void Restart() {
    retriever_->Stop();
    retriever_.reset();
    Start();
  }

  absl::Status Create(const std::string& name) {
    pb::CreateCollectionRequest request;
    request.mutable_spec()->set_name(name);
    grpc::ClientContext context;
    pb::CreateCollectionResponse response;
    return FromGrpcStatus(stub_->CreateCollection(&context, request, &response));
  }
  absl::Status Delete(const std::string& name) {
    pb::DeleteCollectionRequest request;
    request.set_name(name);
    grpc::ClientContext context;
    pb::DeleteCollectionResponse response;
    return FromGrpcStatus(stub_->DeleteCollection(&context, request, &response));
  }
  // The reason, if it failed.
  std::string Put(const std::string& collection, const std::string& id, const std::string& text) {
    pb::UpsertDocumentsRequest request;
    request.set_collection(collection);
    request.add_writes()->mutable_document()->set_id(id);
    request.mutable_writes(0)->mutable_document()->set_text(text);
    grpc::ClientContext context;
    pb::UpsertDocumentsResponse response;
    EXPECT_TRUE(stub_->UpsertDocuments(&context, request, &response).ok());
    return response.results_size() == 1 ? response.results(0).error().reason() : "no result";
  }
  // What the nearest are chunks of, one after the other; or the reason.
  std::string Found(const std::string& collection, const std::string& text) {
    pb::SearchRequest request;
    request.set_collection(collection);
    request.set_k(10);
    request.add_queries()->set_text(text);
    grpc::ClientContext context;
    pb::SearchResponse response;
    const absl::Status status = FromGrpcStatus(stub_->Search(&context, request, &response));
    if (!status.ok()) return std::string(ReasonName(*ReasonOf(status)));
    std::string found;
    for (const auto& neighbour : response.results(0).neighbours()) found += neighbour.chunk().text() + ";";
    return found;
  }
  std::string Embed(const std::string& collection) {
    pb::EmbedRequest request;
    request.set_collection(collection);
    request.add_texts("text");
    grpc::ClientContext context;
    pb::EmbedResponse response;
    const absl::Status status = FromGrpcStatus(stub_->Embed(&context, request, &response));
    return status.ok() ? "" : std::string(ReasonName(*ReasonOf(status)));
  }
  // Whose gauges a scrape finds.
  std::set<std::string> Shown() {
    std::set<std::string> shown;
    for (const auto& family : metrics_->Collect()) {
      for (const auto& metric : family.metric) {
        for (const auto& label : metric.label) {
          if (label.name == "collection") shown.insert(label.value);
        }
      }
    }
    return shown;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Retriever> retriever_;
  std::unique_ptr<pb::RetrieverService::Stub> stub_;
};

TEST_F(RetrieverCollectionsTest, AreApartAndGoWithAllThatIsInThem) {
  EXPECT_EQ(Put("", "a", "of the default one"), "");
  EXPECT_EQ(Put("news", "a", "of the news"), "COLLECTION_NOT_FOUND");
  ASSERT_TRUE(Create("news").ok());
  ASSERT_TRUE(Create("news").ok()) << "the same again";
  EXPECT_EQ(Put("news", "a", "of the news"), "");
  EXPECT_EQ(Found("", "of the news"), "of the default one;");
  EXPECT_EQ(Found("news", "of the news"), "of the news;");
  Restart();
  EXPECT_EQ(Found("news", "of the news"), "of the news;");
  EXPECT_EQ(Embed("news"), "");
  EXPECT_EQ(Shown(), (std::set<std::string>{"", "news"}));
  ASSERT_TRUE(Delete("news").ok());
  EXPECT_EQ(Shown(), (std::set<std::string>{""}));
  EXPECT_EQ(Found("news", "of the news"), "COLLECTION_NOT_FOUND");
  EXPECT_EQ(Embed("news"), "COLLECTION_NOT_FOUND");
  EXPECT_EQ(Put("news", "b", "more news"), "COLLECTION_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Delete("news")), Reason::kCollectionNotFound);
  ASSERT_TRUE(Create("news").ok());
  EXPECT_EQ(Found("news", "of the news"), "") << "it is another one";
  EXPECT_EQ(Found("", "of the news"), "of the default one;");
}

TEST_F(RetrieverCollectionsTest, NamesAreBounded) {
  for (const std::string& name : {std::string(), std::string("Upper"), std::string("a b"), std::string("a/b"),
                                  std::string("\n"), std::string("\xc3\xbc"), std::string(129, 'x')}) {
    EXPECT_EQ(FieldOf(Create(name)), "spec.name") << name;
    EXPECT_EQ(FieldOf(Delete(name)), "name") << name;
  }
  EXPECT_TRUE(Create(std::string(128, 'x')).ok());
  EXPECT_TRUE(Create("a-z_0").ok());
}

}  // namespace
}  // namespace retro
