// A shard in this process, with a store of its own: what tests of it begin with.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "retriever_service/shard/local_shard.h"

namespace retro {

inline constexpr uint32_t kDimension = 4;
inline constexpr char kEmbedder[] = "embedder-fingerprint-of-32-bytes";
inline constexpr char kTokenizer[] = "tokenizer-fingerprint-of-32-byte";

inline pb::CollectionSpec DefaultSpec() {
  pb::CollectionSpec spec;
  spec.set_tokenizer_fingerprint(kTokenizer);
  spec.set_embedder_fingerprint(kEmbedder);
  spec.set_chunk_size(64);
  spec.set_dimension(kDimension);
  return spec;
}

inline pb::Document MakeDocument(const std::string& id, const std::string& text) {
  pb::Document document;
  document.set_id(id);
  document.set_title("title of " + id);
  document.set_text(text);
  document.set_source("/" + id);
  return document;
}

// With hashes, without text and chunks: as a router sends it first.
inline shardpb::DocumentChange FirstTry(const pb::Document& document) {
  shardpb::DocumentChange change;
  *change.mutable_document() = document;
  change.mutable_document()->clear_text();
  change.set_content_hash(ContentHash(document));
  change.set_text_hash(TextHash(document.text()));
  return change;
}

// Cut into chunks of four bytes, all with the same vector.
inline shardpb::DocumentChange Whole(const pb::Document& document, const std::vector<float>& vector) {
  shardpb::DocumentChange change = FirstTry(document);
  change.mutable_document()->set_text(document.text());
  for (size_t begin = 0; begin < document.text().size(); begin += 4) {
    shardpb::ChunkContent& chunk = *change.add_chunks();
    chunk.set_end(std::min(document.text().size(), begin + 4));
    chunk.add_token_ids(static_cast<int>(begin));
    chunk.set_vector_fp16(ToHalf(vector));
  }
  return change;
}

class LocalShardTest : public testing::Test {
 protected:
  LocalShardTest() {
    options_.store.path =
        testing::TempDir() + "local_shard_test_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(options_.store.path);
    options_.default_collection = DefaultSpec();
    Open();
  }
  ~LocalShardTest() override {
    shard_.reset();
    std::filesystem::remove_all(options_.store.path);
  }

  void Open() {
    shard_.reset();
    auto shard = LocalShard::Open(options_);
    ASSERT_TRUE(shard.ok()) << shard.status();
    shard_ = *std::move(shard);
  }

  static shardpb::WriteRequest Request(const std::vector<shardpb::DocumentChange>& changes) {
    shardpb::WriteRequest request;
    request.set_embedder_fingerprint(kEmbedder);
    request.set_tokenizer_fingerprint(kTokenizer);
    for (const auto& change : changes) *request.add_changes() = change;
    return request;
  }

  shardpb::ChangeResult Write(const shardpb::DocumentChange& change) {
    const auto response = shard_->Write(Request({change}), context_);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? response->results(0) : shardpb::ChangeResult();
  }

  shardpb::SearchResponse Search(const std::vector<float>& vector, uint32_t k) {
    shardpb::SearchRequest request;
    request.set_k(k);
    auto& values = *request.add_queries()->mutable_vector();
    for (const float x : vector) values.add_values(x);
    const auto response = shard_->Search(request, context_);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *response : shardpb::SearchResponse();
  }

  absl::StatusOr<shardpb::GetDocumentResponse> Get(const std::string& id) {
    shardpb::GetDocumentRequest request;
    request.set_document_id(id);
    return shard_->GetDocument(request, context_);
  }

  uint64_t LastNumber() { return shard_->GetShardInfo({}, context_)->position().number(); }

  LocalShardOptions options_;
  CallContext context_;
  std::unique_ptr<LocalShard> shard_;
};

}  // namespace retro
