// A store as a released version wrote it, kept in goldens/store/layout_<version>.tar.zst: whoever changes what is on
// disk must go on opening it, or raise the layout version and bring what migrates it. It was made thus: retro-retriever
// with
// --embedder hash:8 and retro-16k.model; documents a, b and c ingested, c deleted; the server stopped and started; d
// ingested and a's title replaced; stopped. Tables and a write-ahead log, rows kept and rows freed are in it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/text/byte_source.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/store/layout.h"
#include "tests/temporary_folder.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

constexpr char kSha256[] = "aad47f81bb9f6fd829cf84a9def2228dc3d6e30ab69855e486c2c1875d26e5f6";

std::string ReadAll(const std::string& path) {
  auto source = OpenByteSource(path);
  EXPECT_TRUE(source.ok()) << source.status();
  std::string all;
  char piece[4096];
  for (size_t size = 1; source.ok() && size > 0;) {
    size = *(*source)->Read(piece, sizeof piece);
    all.append(piece, size);
  }
  return all;
}

// Files and folders of a tar archive, ustar, with short names.
void Unpack(std::string_view archive, const std::string& folder) {
  constexpr size_t kBlock = 512, kSizeAt = 124, kTypeAt = 156;
  while (archive.size() >= kBlock && archive[0] != '\0') {
    const std::string name = archive.data();
    const size_t size = std::strtoul(std::string(archive.substr(kSizeAt, 12)).c_str(), nullptr, 8);
    const bool is_folder = archive[kTypeAt] == '5';
    archive.remove_prefix(kBlock);
    if (is_folder) {
      std::filesystem::create_directories(folder + "/" + name);
    } else {
      std::ofstream(folder + "/" + name, std::ios::binary) << archive.substr(0, size);
    }
    archive.remove_prefix((size + kBlock - 1) / kBlock * kBlock);
  }
}

class ArchivedStoreTest : public testing::Test {
 protected:
  ArchivedStoreTest() {
    Unpack(ReadAll(SourcePath(StrCat("tests/goldens/store/layout_", kLayoutVersion, ".tar.zst"))), folder_.path());
    options_.store.path = folder_.path();
  }

  void SetLayout(uint32_t version) {
    KeyValueOptions rows;
    rows.path = folder_.path() + "/rocksdb";
    const auto opened = KeyValueStore::Open(rows);
    ASSERT_TRUE(opened.ok()) << opened.status();
    KeyValueBatch batch;
    batch.Put(Family::kMeta, "layout_version", Encode32(version));
    ASSERT_TRUE((*opened)->Write(batch).ok());
  }

  void ExpectWhole() {
    const auto shard = LocalShard::Open(options_);
    ASSERT_TRUE(shard.ok()) << shard.status();
    const auto digest = (*shard)->store().ComputeDigest(CallContext());
    ASSERT_TRUE(digest.ok()) << digest.status();
    EXPECT_EQ(HexEncode(digest->sha256), kSha256);
    EXPECT_EQ(digest->documents, 3u);
    EXPECT_EQ(digest->chunks, 4u);
  }

  const TemporaryFolder folder_;
  LocalShardOptions options_;
};

TEST_F(ArchivedStoreTest, IsOpenedWithAllThatItHeld) {
  ExpectWhole();
  const auto shard = *LocalShard::Open(options_);
  EXPECT_EQ(shard->position().number(), 7u);
  shardpb::GetDocumentRequest get;
  get.set_document_id("a");
  const auto document = shard->GetDocument(get, CallContext());
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(document->document().title(), "On inverted lists");
  EXPECT_EQ(document->document().text(), "An inverted list names, for each value, the documents that have it.");
  EXPECT_EQ(document->document().metadata().at("tag").values_size(), 2);
  get.set_document_id("c");
  EXPECT_EQ(shard->GetDocument(get, CallContext()).status().code(), absl::StatusCode::kNotFound);

  shardpb::GetChunksRequest chunks;
  chunks.set_document_id("b");
  chunks.set_first_chunk(1);
  chunks.set_max_chunks(1);
  chunks.set_include_vectors(true);
  const auto second = shard->GetChunks(chunks, CallContext());
  ASSERT_TRUE(second.ok()) << second.status();
  shardpb::SearchRequest search;
  search.set_k(2);
  *search.add_queries()->mutable_vector() = second->vectors(0);
  const auto found = shard->Search(search, CallContext());
  ASSERT_TRUE(found.ok()) << found.status();
  const pb::Neighbour& nearest = found->results(0).neighbours(0);
  EXPECT_EQ(nearest.document_id(), "b");
  EXPECT_EQ(nearest.chunk().chunk_number(), 1u);
  EXPECT_EQ(nearest.distance(), 0);
  EXPECT_FALSE(nearest.chunk().token_ids().empty());
}

TEST_F(ArchivedStoreTest, OfALayoutThatIsNotKnownItIsRefusedAndLeftAsItIs) {
  for (const uint32_t version : {kLayoutVersion + 1, kLayoutVersion - 1}) {
    SetLayout(version);
    const absl::Status status = LocalShard::Open(options_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(ReasonOf(status), Reason::kLayoutUnknown);
    EXPECT_THAT(MessageOf(status), testing::HasSubstr(StrCat("has layout version ", version)));
    EXPECT_THAT(MessageOf(status), testing::HasSubstr("use the version that wrote it")) << "what to do";
  }
  SetLayout(kLayoutVersion);
  ExpectWhole();
}

}  // namespace
}  // namespace retro
