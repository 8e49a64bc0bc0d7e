// The standalone retriever over gRPC, with a hash embedder: equal texts have equal vectors, so what must be found is
// known.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/rpc/status.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/retriever.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/temporary_folder.h"
#include "tests/test_paths.h"

namespace retro {

namespace pb = retriever::v1;

inline constexpr int kDimension = 32;

// Enough words for several chunks, each chunk's text unlike every other's.
inline std::string LongText(const std::string& word, int words) {
  std::string text;
  for (int i = 0; i < words; ++i) text += word + std::to_string(i) + (i % 10 == 9 ? ".\n" : " ");
  return text;
}

// Embeds while its gate is open, and waits while it is not.
class GatedEmbedder final : public HashEmbedder {
 public:
  GatedEmbedder(int dimension, const std::atomic<bool>& open, std::atomic<bool>& waits)
      : HashEmbedder(dimension), open_(open), waits_(waits) {}
  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenSequence> sequences) override {
    for (; !open_; std::this_thread::sleep_for(std::chrono::milliseconds(1))) waits_ = true;
    waits_ = false;
    return HashEmbedder::Embed(sequences);
  }

 private:
  const std::atomic<bool>& open_;
  std::atomic<bool>& waits_;
};

class RetrieverTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }
  void TearDown() override {
    if (retriever_ != nullptr) retriever_->Stop();
  }

  absl::Status TryStart(int dimension, const std::string& tokenizer) {
    options_.data = folder_ / "store";
    options_.tokenizer = tokenizer;
    auto retriever = Retriever::Start(options_, server_options_,
                                      std::make_unique<GatedEmbedder>(dimension, gate_, at_gate_), metrics_);
    if (!retriever.ok()) return retriever.status();
    retriever_ = *std::move(retriever);
    stub_ = pb::RetrieverService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(retriever_->port()), grpc::InsecureChannelCredentials()));
    return absl::OkStatus();
  }

  void Restart() {
    if (retriever_ != nullptr) retriever_->Stop();
    retriever_.reset();
    const absl::Status status = TryStart(kDimension, kTokenizer);
    ASSERT_TRUE(status.ok()) << status;
  }

  absl::Status TryPut(const std::string& id, const std::string& text) {
    pb::UpsertDocumentsRequest request;
    request.add_writes()->mutable_document()->set_id(id);
    request.mutable_writes(0)->mutable_document()->set_text(text);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    pb::UpsertDocumentsResponse response;
    return FromGrpcStatus(stub_->UpsertDocuments(&context, request, &response));
  }

  pb::DocumentResult Put(const std::string& id, const std::string& text, const std::string& title = "") {
    pb::UpsertDocumentsRequest request;
    auto* document = request.add_writes()->mutable_document();
    document->set_id(id);
    document->set_text(text);
    document->set_title(title);
    grpc::ClientContext context;
    pb::UpsertDocumentsResponse response;
    const grpc::Status status = stub_->UpsertDocuments(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    token_ = response.consistency_token();
    return response.results_size() == 1 ? response.results(0) : pb::DocumentResult();
  }

  absl::StatusOr<pb::SearchResponse> Search(const pb::SearchRequest& request) {
    grpc::ClientContext context;
    pb::SearchResponse response;
    const grpc::Status status = stub_->Search(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  static pb::SearchRequest TextSearch(const std::string& text) {
    pb::SearchRequest request;
    request.add_queries()->set_text(text);
    return request;
  }

  std::vector<pb::Chunk> Chunks(const std::string& id) {
    pb::GetChunksRequest request;
    request.set_document_id(id);
    grpc::ClientContext context;
    pb::GetChunksResponse response;
    EXPECT_TRUE(stub_->GetChunks(&context, request, &response).ok());
    return {response.chunks().begin(), response.chunks().end()};
  }

  static inline const std::string kTokenizer = SourcePath("common/tokenizer/retro-16k.model");
  TemporaryFolder folder_;
  std::atomic<bool> gate_ = true;      // embeddings wait while it is shut
  std::atomic<bool> at_gate_ = false;  // one does
  RetrieverOptions options_;
  ServerOptions server_options_;
  Metrics metrics_;
  std::unique_ptr<Retriever> retriever_;
  std::unique_ptr<pb::RetrieverService::Stub> stub_;
  std::string token_;
};

}  // namespace retro
