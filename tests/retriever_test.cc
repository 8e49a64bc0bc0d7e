#include "retriever_service/retriever.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/retriever_fixture.h"

namespace retro {
namespace {

TEST_F(RetrieverTest, AChunkIsFoundByItsTextWithItsContinuation) {
  const std::string text = LongText("ocean", 120);
  EXPECT_EQ(Put("sea", text, "The sea").outcome(), pb::WRITE_OUTCOME_CREATED);
  const std::vector<pb::Chunk> chunks = Chunks("sea");
  ASSERT_GE(chunks.size(), 3u);
  std::string whole;
  for (const auto& chunk : chunks) {
    EXPECT_EQ(chunk.byte_range().begin(), whole.size());
    whole += chunk.text();
    EXPECT_EQ(chunk.byte_range().end(), whole.size());
  }
  EXPECT_EQ(whole, text);

  auto response = Search(TextSearch(chunks[1].text()));
  ASSERT_TRUE(response.ok()) << response.status();
  ASSERT_EQ(response->results_size(), 1);
  ASSERT_EQ(response->results(0).neighbours_size(), 2) << "k is 2 by default";
  const pb::Neighbour& nearest = response->results(0).neighbours(0);
  EXPECT_LT(nearest.distance(), 1e-3);
  EXPECT_EQ(nearest.document_id(), "sea");
  EXPECT_EQ(nearest.title(), "The sea");
  EXPECT_EQ(nearest.chunk().chunk_number(), 1u);
  EXPECT_EQ(nearest.chunk().text(), chunks[1].text());
  EXPECT_EQ(nearest.continuation().text(), chunks[2].text());
  EXPECT_FALSE(nearest.chunk().token_ids().empty());
  EXPECT_EQ(nearest.content_hash().size(), 32u);
  EXPECT_EQ(response->coverage().shards_answered(), 1u);

  response = Search(TextSearch(chunks.back().text()));
  ASSERT_TRUE(response.ok());
  EXPECT_FALSE(response->results(0).neighbours(0).has_continuation()) << "the last chunk has none";
}

TEST_F(RetrieverTest, WritesAreCreatedUnchangedReplaced) {
  EXPECT_EQ(Put("a", "one text").outcome(), pb::WRITE_OUTCOME_CREATED);
  EXPECT_EQ(Put("a", "one text").outcome(), pb::WRITE_OUTCOME_UNCHANGED);
  EXPECT_EQ(Put("a", "one text", "now with a title").outcome(), pb::WRITE_OUTCOME_REPLACED);
  EXPECT_EQ(Put("a", "another text").outcome(), pb::WRITE_OUTCOME_REPLACED);
  const auto response = Search(TextSearch("one text"));
  ASSERT_TRUE(response.ok());
  for (const auto& neighbour : response->results(0).neighbours()) EXPECT_NE(neighbour.chunk().text(), "one text");
}

TEST_F(RetrieverTest, BadDocumentsFailAloneInAStream) {
  grpc::ClientContext context;
  auto stream = stub_->Ingest(&context);
  const std::vector<std::pair<std::string, std::string>> documents = {
      {"good", "text"}, {"empty", ""}, {"", "no id"}, {"good", "text again"}, {"last", "end"}};
  for (size_t i = 0; i < documents.size(); ++i) {
    pb::IngestRequest request;
    request.set_sequence(100 + i);
    request.mutable_write()->mutable_document()->set_id(documents[i].first);
    request.mutable_write()->mutable_document()->set_text(documents[i].second);
    ASSERT_TRUE(stream->Write(request));
  }
  stream->WritesDone();
  pb::IngestResponse response;
  std::vector<std::string> outcomes;
  uint64_t sequence = 100;
  while (stream->Read(&response)) {
    EXPECT_EQ(response.sequence(), sequence++) << "acknowledgements come in the order of the documents";
    outcomes.push_back(response.result().has_error() ? response.result().error().field()
                                                     : pb::WriteOutcome_Name(response.result().outcome()));
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(outcomes, std::vector<std::string>({"WRITE_OUTCOME_CREATED", "write.document.text", "write.document.id",
                                                "WRITE_OUTCOME_REPLACED", "WRITE_OUTCOME_CREATED"}));
}

TEST_F(RetrieverTest, AWrongFieldIsNamedByItsPathInTheRequest) {
  pb::UpsertDocumentsRequest request;
  for (const char* id : {"good", "bad"}) request.add_writes()->mutable_document()->set_id(id);
  request.mutable_writes(0)->mutable_document()->set_text("text");
  request.mutable_writes(1)->mutable_document()->set_text("text");
  request.mutable_writes(1)->add_chunk_vectors()->add_values(1);
  grpc::ClientContext context;
  pb::UpsertDocumentsResponse response;
  ASSERT_TRUE(stub_->UpsertDocuments(&context, request, &response).ok());
  ASSERT_EQ(response.results_size(), 2);
  EXPECT_EQ(response.results(0).outcome(), pb::WRITE_OUTCOME_CREATED);
  EXPECT_EQ(response.results(1).document_id(), "bad");
  EXPECT_EQ(response.results(1).error().reason(), "EMBEDDER_MISMATCH");
  EXPECT_EQ(response.results(1).error().message().rfind("writes[1].embedder_fingerprint: ", 0), 0u);
  request.mutable_writes(1)->clear_chunk_vectors();
  request.mutable_writes(1)->mutable_document()->clear_text();
  grpc::ClientContext again;
  ASSERT_TRUE(stub_->UpsertDocuments(&again, request, &response).ok());
  EXPECT_EQ(response.results(1).error().field(), "writes[1].document.text");
}

TEST_F(RetrieverTest, TextThatIsNoUtf8FailsAloneInAStream) {
  grpc::ClientContext context;
  auto stream = stub_->Ingest(&context);
  uint64_t sequence = 0;
  for (const char* text : {"good", "not \xC3( UTF-8", "good again"}) {
    pb::IngestRequest request;
    request.set_sequence(++sequence);
    request.mutable_write()->mutable_document()->set_id("d" + std::to_string(sequence));
    request.mutable_write()->mutable_document()->set_text(text);
    ASSERT_TRUE(stream->Write(request));
  }
  stream->WritesDone();
  pb::IngestResponse response;
  std::vector<std::string> reasons;
  while (stream->Read(&response)) {
    EXPECT_EQ(response.sequence(), reasons.size() + 1);
    reasons.push_back(response.result().error().reason());
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(reasons, std::vector<std::string>({"", "INVALID_FIELD", ""}));
}

// gRPC itself would answer with a bare status.
TEST_F(RetrieverTest, ARequestThatDoesNotParseIsAWrongOne) {
  const absl::Status status = Search(TextSearch("not \xC3( UTF-8")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), Reason::kInvalidField);
  EXPECT_NE(MessageOf(status).find("UTF-8"), std::string_view::npos) << status;
}

TEST_F(RetrieverTest, AReplyBeyondOneMessageIsAWrongRequest) {
  server_options_.message_bytes_max = 20'000;
  Restart();
  for (int i = 0; i < 30; ++i) Put("d" + std::to_string(i), LongText("w" + std::to_string(i), 60));
  pb::SearchRequest request;
  for (int i = 0; i < 3; ++i) request.add_queries()->set_text("words");
  request.set_k(4);
  EXPECT_TRUE(Search(request).ok());
  request.set_k(50);
  const absl::Status status = Search(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "k") << status;

  grpc::ClientContext context;
  pb::CutChunksRequest cut;
  cut.set_text(LongText("much", 1500));
  pb::CutChunksResponse response;
  const absl::Status too_large = FromGrpcStatus(stub_->CutChunks(&context, cut, &response));
  EXPECT_EQ(too_large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(too_large), Reason::kInvalidField) << too_large;
}

TEST_F(RetrieverTest, AnIdleStreamIsEndedByAServerThatStops) {
  grpc::ClientContext context;
  auto stream = stub_->Ingest(&context);
  pb::IngestRequest request;
  request.mutable_write()->mutable_document()->set_id("a");
  request.mutable_write()->mutable_document()->set_text("kept");
  pb::IngestResponse response;
  ASSERT_TRUE(stream->Write(request) && stream->Read(&response));
  EXPECT_EQ(response.result().outcome(), pb::WRITE_OUTCOME_CREATED);
  retriever_->Stop();
  EXPECT_FALSE(stream->Read(&response));
  const absl::Status status = FromGrpcStatus(stream->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), Reason::kShuttingDown) << status;
  Restart();
  EXPECT_EQ(Put("a", "kept").outcome(), pb::WRITE_OUTCOME_UNCHANGED);
}

// Streams end while workers still report to them.
TEST_F(RetrieverTest, ManyShortStreamsEndCleanly) {
  constexpr int kClients = 4;
  std::vector<std::thread> clients;
  clients.reserve(kClients);
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([this, c] {
      for (int i = 0; i < 25; ++i) {
        grpc::ClientContext context;
        auto stream = stub_->Ingest(&context);
        pb::IngestRequest request;
        for (int d = 0; d < 4; ++d) {
          request.mutable_write()->mutable_document()->set_id(std::to_string(c) + "/" + std::to_string(d));
          request.mutable_write()->mutable_document()->set_text(d == 3 ? "" : "text");
          stream->Write(request);
        }
        if (i % 5 == 4) context.TryCancel();
        stream->WritesDone();
        pb::IngestResponse response;
        int answers = 0;
        while (stream->Read(&response)) ++answers;
        if (stream->Finish().ok()) {
          EXPECT_EQ(answers, 4);
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(RetrieverTest, OfEqualIdsTheLaterWins) {
  grpc::ClientContext context;
  auto stream = stub_->Ingest(&context);
  constexpr int kVersions = 200;
  for (int i = 0; i < kVersions; ++i) {
    pb::IngestRequest request;
    request.mutable_write()->mutable_document()->set_id("same");
    request.mutable_write()->mutable_document()->set_text("version " + std::to_string(i));
    ASSERT_TRUE(stream->Write(request));
  }
  stream->WritesDone();
  pb::IngestResponse response;
  int acknowledged = 0;
  while (stream->Read(&response)) ++acknowledged;
  EXPECT_EQ(acknowledged, kVersions);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(Chunks("same").size(), 1u);
  EXPECT_EQ(Chunks("same")[0].text(), "version " + std::to_string(kVersions - 1));
}

TEST_F(RetrieverTest, CallersVectorsAreUsedAndChecked) {
  pb::UpsertDocumentsRequest request;
  auto* write = request.add_writes();
  write->mutable_document()->set_id("v");
  write->mutable_document()->set_text("short");
  auto* vector = write->add_chunk_vectors();
  for (int i = 0; i < kDimension; ++i) vector->add_values(i == 3 ? 1.0f : 0.0f);
  write->set_embedder_fingerprint("of another embedder");
  auto send = [&] {
    grpc::ClientContext context;
    pb::UpsertDocumentsResponse response;
    EXPECT_TRUE(stub_->UpsertDocuments(&context, request, &response).ok());
    return response.results(0);
  };
  EXPECT_EQ(send().error().reason(), "EMBEDDER_MISMATCH");
  write->set_embedder_fingerprint(HashEmbedder(kDimension).info().fingerprint);
  write->add_chunk_vectors()->CopyFrom(*vector);
  EXPECT_EQ(send().error().field(), "writes[0].chunk_vectors") << "two vectors for one chunk";
  write->mutable_chunk_vectors()->RemoveLast();
  EXPECT_EQ(send().outcome(), pb::WRITE_OUTCOME_CREATED);

  pb::SearchRequest search;
  auto* query = search.add_queries();
  *query->mutable_vector() = write->chunk_vectors(0);
  query->set_embedder_fingerprint(write->embedder_fingerprint());
  auto found = Search(search);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->results(0).neighbours(0).document_id(), "v");
  query->set_embedder_fingerprint("other");
  EXPECT_EQ(ReasonOf(Search(search).status()), Reason::kEmbedderMismatch);
  query->set_embedder_fingerprint(write->embedder_fingerprint());
  query->mutable_vector()->mutable_values()->RemoveLast();
  EXPECT_EQ(FieldOf(Search(search).status()), "queries[0].vector");
}

TEST_F(RetrieverTest, DeletedIsNeverFoundAgain) {
  Put("keep", "keep this text");
  Put("drop", "drop this text");
  pb::DeleteDocumentsRequest request;
  request.add_document_ids("drop");
  request.add_document_ids("never was");
  request.set_dry_run(true);
  for (const bool dry : {true, false}) {
    request.set_dry_run(dry);
    grpc::ClientContext context;
    pb::DeleteDocumentsResponse response;
    ASSERT_TRUE(stub_->DeleteDocuments(&context, request, &response).ok());
    EXPECT_EQ(response.deleted_count(), 1u);
    const auto found = Search(TextSearch("drop this text"));
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->results(0).neighbours(0).document_id(), dry ? "drop" : "keep");
  }
  Restart();
  const auto found = Search(TextSearch("drop this text"));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->results(0).neighbours_size(), 1);
  EXPECT_EQ(found->results(0).neighbours(0).document_id(), "keep");
}

TEST_F(RetrieverTest, SurvivesARestartWithTheSameStoreId) {
  Put("a", LongText("river", 100));
  const std::string token = token_;
  const std::vector<pb::Chunk> before = Chunks("a");
  Restart();
  const std::vector<pb::Chunk> after = Chunks("a");
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(before[i].SerializeAsString(), after[i].SerializeAsString());
  auto request = TextSearch(before[0].text());
  request.set_consistency_token(token);
  EXPECT_TRUE(Search(request).ok()) << "a token outlives a restart";
}

TEST_F(RetrieverTest, ATokenOfAnotherStoreIsRefused) {
  Put("a", "text");
  const std::string token = token_;
  retriever_->Stop();
  retriever_.reset();
  std::filesystem::remove_all(folder_ / "store");
  Restart();
  auto request = TextSearch("text");
  request.set_consistency_token(token);
  EXPECT_EQ(ReasonOf(Search(request).status()), Reason::kForeignStore) << "a new store is another one";
}

TEST_F(RetrieverTest, AStoreMadeWithAnotherEmbedderIsRefused) {
  Put("a", "text");
  retriever_->Stop();
  retriever_.reset();
  const absl::Status status = TryStart(kDimension * 2, kTokenizer);
  EXPECT_EQ(ReasonOf(status), Reason::kEmbedderMismatch) << status;
  Restart();
  EXPECT_EQ(Chunks("a").size(), 1u) << "nothing is lost by the refusal";
}

// The same fingerprint, other vectors: a broken library, or a number format that is too coarse.
class DriftingEmbedder : public HashEmbedder {
 public:
  using HashEmbedder::HashEmbedder;
  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenSequence> sequences) override {
    auto vectors = HashEmbedder::Embed(sequences);
    if (vectors.ok()) std::reverse(vectors->begin(), vectors->end());
    return vectors;
  }
};

TEST_F(RetrieverTest, AnEmbedderThatDriftedFromTheStoreIsRefused) {
  Put("a", "text");
  retriever_->Stop();
  retriever_.reset();
  RetrieverOptions options;
  options.data = folder_ / "store";
  options.tokenizer = kTokenizer;
  const auto drifted =
      Retriever::Start(options, ServerOptions(), std::make_unique<DriftingEmbedder>(kDimension), metrics_);
  EXPECT_EQ(ReasonOf(drifted.status()), Reason::kEmbedderMismatch) << drifted.status();
  Restart();
}

TEST_F(RetrieverTest, MetricsShowWhatIsThereAndWhatWasDone) {
  Put("a", "text");
  Put("a", "text");
  ASSERT_TRUE(Search(TextSearch("text")).ok());
  std::map<std::string, double> values;
  for (const auto& family : metrics_.Collect()) {
    for (const auto& metric : family.metric) {
      std::string name = family.name;
      for (const auto& label : metric.label) name += " " + label.value;
      values[name] = metric.counter.value + metric.gauge.value + static_cast<double>(metric.histogram.sample_count);
    }
  }
  EXPECT_EQ(values["retro_documents_written_total created"], 1);
  EXPECT_EQ(values["retro_documents_written_total unchanged"], 1);
  EXPECT_EQ(values["retro_search_index_seconds"], 1);
  EXPECT_EQ(values["retro_search_neighbours_total"], 1);
  EXPECT_EQ(values["retro_store_documents  0"], 1) << "collection \"\", shard 0";
  EXPECT_EQ(values["retro_embed_texts"], 2) << "one document, one query";
  EXPECT_EQ(values["retro_requests_total OK Search"], 1);
}

TEST_F(RetrieverTest, ListsAllDocumentsPageByPage) {
  std::map<std::string, int> seen;
  for (int i = 0; i < 25; ++i) Put("doc" + std::to_string(i), "text " + std::to_string(i));
  pb::ListDocumentsRequest request;
  request.set_page_size(7);
  do {
    grpc::ClientContext context;
    pb::ListDocumentsResponse response;
    ASSERT_TRUE(stub_->ListDocuments(&context, request, &response).ok());
    EXPECT_LE(response.documents_size(), 7);
    for (const auto& summary : response.documents()) {
      ++seen[summary.document().id()];
      EXPECT_TRUE(summary.document().text().empty());
    }
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen.size(), 25u);
  for (const auto& [id, times] : seen) EXPECT_EQ(times, 1) << id;
  request.set_page_token("not a token of ours");
  grpc::ClientContext context;
  pb::ListDocumentsResponse response;
  EXPECT_EQ(FieldOf(FromGrpcStatus(stub_->ListDocuments(&context, request, &response))), "page_token");
}

TEST_F(RetrieverTest, APortInUseIsOneLine) {
  RetrieverOptions options;
  options.data = folder_ / "second";
  options.tokenizer = kTokenizer;
  ServerOptions server;
  server.listen = "127.0.0.1:" + std::to_string(retriever_->port());
  const auto second = Retriever::Start(options, server, std::make_unique<HashEmbedder>(kDimension), metrics_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find("port in use"), absl::string_view::npos) << second.status();
}

}  // namespace
}  // namespace retro
