// Many bytes and many calls that wait at a retriever: bounds hold, and reads go on beside writes.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/retriever_fixture.h"

namespace retro {
namespace {

TEST_F(RetrieverTest, RequestsBeyondTheMemoryForThemAreRefusedAtOnce) {
  options_.request_bytes_max = 4000;
  Restart();
  const absl::Status status = Search(TextSearch(std::string(5000, 'x'))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), Reason::kQueueFull);
  EXPECT_TRUE(RetryAfterOf(status).has_value());
  // Room is given back, on a busy machine some time after the reply has come.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (int answered = 0; answered < 200;) {
    const absl::Status searched = Search(TextSearch(std::string(100, 'x'))).status();
    answered += searched.ok() ? 1 : 0;
    ASSERT_TRUE(searched.ok() || ReasonOf(searched) == Reason::kQueueFull) << searched;
    ASSERT_LT(std::chrono::steady_clock::now(), end) << answered << " answered";
  }
}

TEST_F(RetrieverTest, WritesThatWaitHoldUpNeitherReadsNorOthersWhoseCallersLeft) {
  options_.workers = 1;
  Restart();
  gate_ = false;
  const auto in = [](std::chrono::milliseconds time) { return std::chrono::system_clock::now() + time; };
  pb::UpsertDocumentsRequest request;
  request.add_writes()->mutable_document()->set_id("a");
  request.mutable_writes(0)->mutable_document()->set_text("text");
  std::atomic<bool> left = false;
  std::thread writer([&] {
    grpc::ClientContext context;
    context.set_deadline(in(std::chrono::milliseconds(3000)));
    pb::UpsertDocumentsResponse response;
    EXPECT_EQ(stub_->UpsertDocuments(&context, request, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    left = true;
  });
  while (!left) {
    grpc::ClientContext reading;
    reading.set_deadline(in(std::chrono::milliseconds(2500)));  // less than the write holds on
    pb::GetInfoResponse info;
    EXPECT_TRUE(stub_->GetInfo(&reading, {}, &info).ok());
  }
  writer.join();
  grpc::ClientContext deleting;
  deleting.set_deadline(in(std::chrono::seconds(10)));
  pb::DeleteDocumentsRequest deletion;
  deletion.add_document_ids("none");
  pb::DeleteDocumentsResponse deleted;
  const grpc::Status status = stub_->DeleteDocuments(&deleting, deletion, &deleted);
  EXPECT_TRUE(status.ok()) << status.error_message();
  gate_ = true;
}

class AloneRetrieverTest : public RetrieverTest {
 protected:
  AloneRetrieverTest() { options_.ingest_bytes_max = 1; }  // each document is
};

TEST_F(AloneRetrieverTest, WhatDocumentsBecomeHasABudget) {
  constexpr double kChunksAtOnce = 256;  // of one document, in the embedder's line
  gate_ = false;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([this, i] {
      pb::UpsertDocumentsRequest request;
      request.add_writes()->mutable_document()->set_id(StrCat("d", i));
      request.mutable_writes(0)->mutable_document()->set_text(LongText(StrCat("word", i), 20'000));
      grpc::ClientContext context;
      pb::UpsertDocumentsResponse response;
      EXPECT_TRUE(stub_->UpsertDocuments(&context, request, &response).ok());
      EXPECT_GT(response.results(0).chunk_count(), 2 * kChunksAtOnce);
    });
  }
  while (!at_gate_) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::seconds(1));  // for the others, if they may
  metrics_.Collect();
  EXPECT_LE(metrics_.Gauge("retro_embed_waiting", "", {{"kind", "ingest"}}).Value(), kChunksAtOnce);
  gate_ = true;
  for (std::thread& caller : callers) caller.join();
}

// Else whoever may only read could keep documents out: a budget and workers of its own.
TEST_F(AloneRetrieverTest, WhatIsOnlyCutWaitsForNoDocument) {
  options_.workers = 1;
  Restart();
  gate_ = false;
  std::thread writer([this] { Put("d", LongText("word", 1000)); });
  while (!at_gate_) std::this_thread::yield();  // the document has the whole of the other budget
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  pb::CutChunksRequest request;
  request.set_text("some text");
  pb::CutChunksResponse response;
  const grpc::Status status = stub_->CutChunks(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  gate_ = true;
  writer.join();
}

class LittleMemoryTest : public RetrieverTest {
 protected:
  LittleMemoryTest() {
    options_.request_bytes_max = 1'000'000;
    options_.ingest_bytes_max = 1;  // of each document by itself
  }

  double Held(const std::string& queue) {
    metrics_.Collect();
    return metrics_.Gauge("retro_request_bytes", "", {{"queue", queue}}).Value();
  }

  // The nearest document, or why there is none, without waiting for the embedder.
  std::string FindOne() {
    pb::SearchRequest request;
    request.add_queries()->set_embedder_fingerprint(HashEmbedder(kDimension).info().fingerprint);
    for (int i = 0; i < kDimension; ++i) request.mutable_queries(0)->mutable_vector()->add_values(1);
    const auto found = Search(request);
    return found.ok() ? found->results(0).neighbours(0).document_id() : std::string(MessageOf(found.status()));
  }
};

// The embedder stands still, each stream's documents wait for those before, and together they are more than may wait.
TEST_F(LittleMemoryTest, DocumentsThatWaitTakeNoMemoryOfReads) {
  constexpr int kStreams = 30;
  Put("found", "text");
  gate_ = false;
  pb::IngestRequest document;
  document.mutable_write()->mutable_document()->set_id("d");
  document.mutable_write()->mutable_document()->set_text(LongText("word", 10'000));
  using Stream = grpc::ClientReaderWriter<pb::IngestRequest, pb::IngestResponse>;
  std::vector<std::pair<std::unique_ptr<grpc::ClientContext>, std::unique_ptr<Stream>>> streams;
  for (int i = 0; i < kStreams; ++i) {
    auto context = std::make_unique<grpc::ClientContext>();
    auto stream = stub_->Ingest(context.get());
    EXPECT_TRUE(stream->Write(document));
    stream->WritesDone();
    streams.emplace_back(std::move(context), std::move(stream));
  }
  while (Held("reads") + Held("writes") < 800'000) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(ReasonOf(TryPut("another", LongText("word", 50'000))), Reason::kQueueFull) << "of writes there are enough";
  EXPECT_EQ(Held("reads"), 0);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(FindOne(), "found");
  gate_ = true;
  int acknowledged = 0, refused = 0;
  for (const auto& [context, stream] : streams) {
    for (pb::IngestResponse response; stream->Read(&response);) ++acknowledged;
    const absl::Status status = FromGrpcStatus(stream->Finish());
    EXPECT_TRUE(status.ok() || ReasonOf(status) == Reason::kQueueFull) << status;
    refused += status.ok() ? 0 : 1;
  }
  EXPECT_EQ(acknowledged + refused, kStreams);
  EXPECT_GT(refused, 0);
  EXPECT_TRUE(TryPut("another", LongText("word", 50'000)).ok()) << "room is given back";
}

// What came is small, and what became of it is not.
TEST_F(LittleMemoryTest, DocumentsWhoseCallerLeftAreHeldAsTheyAreInMemory) {
  pb::UpsertDocumentsRequest request;
  request.add_writes()->mutable_document()->set_id("waits");
  request.mutable_writes(0)->mutable_document()->set_text("text");
  pb::DocumentWrite& of_many_parts = *request.add_writes();
  for (int i = 0; i < 2000; ++i) of_many_parts.add_chunk_vectors();
  const auto sent = static_cast<double>(request.ByteSizeLong());
  gate_ = false;
  grpc::ClientContext context;
  std::thread caller([&] {
    pb::UpsertDocumentsResponse response;
    EXPECT_EQ(stub_->UpsertDocuments(&context, request, &response).error_code(), grpc::StatusCode::CANCELLED);
  });
  const auto wait = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  while (!at_gate_) wait();  // which keeps the first document
  const double of_the_call = Held("writes");
  context.TryCancel();
  caller.join();
  while (Held("writes") >= of_the_call) wait();  // until it has ended
  EXPECT_GT(Held("writes"), 10 * sent);
  gate_ = true;
  while (Held("writes") > 0) wait();
}

}  // namespace
}  // namespace retro
