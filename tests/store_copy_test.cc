#include "retriever_service/replica/store_copy.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

class StoreCopyTest : public testing::Test {
 protected:
  StoreCopyTest() {
    spdlog::set_level(spdlog::level::off);
    options_.default_collection.emplace().set_dimension(kDimension);
    options_.index.seal_rows = 300;
    options_.store.path = folder_ / "source";
    auto shard = LocalShard::Open(options_);
    EXPECT_TRUE(shard.ok()) << shard.status();
    shard_ = *std::move(shard);
  }

  // Of one chunk each.
  void WriteDocuments(int count) {
    shardpb::WriteRequest request;
    for (int i = 0; i < count; ++i) {
      const std::string text(1 + i % 50, 'x');
      shardpb::DocumentChange& change = *request.add_changes();
      change.mutable_document()->set_id(StrCat("d", i));
      change.mutable_document()->set_text(text);
      change.set_content_hash(ContentHash(change.document()));
      change.set_text_hash(TextHash(text));
      change.add_chunks()->set_end(text.size());
      const std::vector<float> vector = {1, static_cast<float>(i), static_cast<float>(i % 7), 0};
      change.mutable_chunks(0)->set_vector_fp16(ToHalf(vector));
    }
    ASSERT_TRUE(shard_->Write(request, CallContext()).ok());
    ASSERT_TRUE(shard_->WaitForIndexes(0).ok());
  }

  std::vector<shardpb::FetchSnapshotResponse> Parts(bool with_index) {
    std::vector<shardpb::FetchSnapshotResponse> parts;
    EXPECT_TRUE(SendStoreCopy(*shard_, options_.store.path, with_index, [&](const auto& part) {
                  parts.push_back(part);
                  return absl::OkStatus();
                }).ok());
    return parts;
  }

  static std::map<std::string, std::string> IndexFiles(const std::string& data) {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(data + "/index/0")) {
      files[entry.path().filename()] = *ReadFile(entry.path());
    }
    return files;
  }

  static constexpr uint32_t kDimension = 4;
  const TemporaryFolder folder_;
  const std::string data_ = folder_ / "copy";
  LocalShardOptions options_;
  std::unique_ptr<LocalShard> shard_;
};

// With the same segments, trained on vectors of which the store holds some no longer.
TEST_F(StoreCopyTest, BringsTheIndex) {
  WriteDocuments(400);
  shardpb::DeleteRequest remove;
  for (int i = 0; i < 20; ++i) remove.add_document_ids(StrCat("d", i));
  ASSERT_TRUE(shard_->Delete(remove, CallContext()).ok());
  auto receiver = StoreCopyReceiver::Start(data_);
  ASSERT_TRUE(receiver.ok()) << receiver.status();
  for (const auto& part : Parts(/*with_index=*/true)) ASSERT_TRUE(receiver->Take(part).ok());
  ASSERT_TRUE(receiver->Install().ok());
  const auto files = IndexFiles(options_.store.path);
  EXPECT_EQ(files.size(), 4u) << "a manifest, and the three files of a segment";
  EXPECT_TRUE(IndexFiles(data_) == files);
  LocalShardOptions options = options_;
  options.store.path = data_;
  const auto copy = LocalShard::Open(options);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_TRUE(IndexFiles(data_) == files) << "taken as it is";
  const auto stats = (*copy)->Stats({}, CallContext());
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->stats().collections(0).chunks(), 380u);
  EXPECT_EQ(stats->stats().collections(0).index_state(), pb::INDEX_STATE_READY);
}

TEST_F(StoreCopyTest, CutShortItLeavesTheOldStoreOrTheNew) {
  WriteDocuments(1);
  const auto parts = Parts(/*with_index=*/false);
  EXPECT_GT(parts.size(), 2u);
  auto receiver = StoreCopyReceiver::Start(data_);
  ASSERT_TRUE(receiver.ok());
  for (size_t i = 0; i + 1 < parts.size(); ++i) ASSERT_TRUE(receiver->Take(parts[i]).ok());
  EXPECT_EQ(receiver->Install().code(), absl::StatusCode::kDataLoss) << "the end is missing";
  ASSERT_TRUE(FinishStoreCopy(data_).ok());
  EXPECT_FALSE(std::filesystem::exists(data_ + "/rocksdb"));
  auto second = StoreCopyReceiver::Start(data_);
  shardpb::FetchSnapshotResponse damaged = parts[0];
  damaged.mutable_content()->append("x");
  damaged.set_sha256(std::string(32, 'x'));
  EXPECT_EQ(ReasonOf(second->Take(damaged)), Reason::kStoreDamaged);
  for (const char* name : {"../x", "index/../x", "index/0/../x", "index/x", "index/0/.x"}) {
    damaged.set_file_name(name);
    EXPECT_EQ(ReasonOf(second->Take(damaged)), Reason::kStoreDamaged) << name;
  }
  // Whole, but the process died between two steps of putting it in place.
  auto third = StoreCopyReceiver::Start(data_);
  for (const auto& part : parts) ASSERT_TRUE(third->Take(part).ok());
  ASSERT_TRUE(WriteFileAtomically(data_ + "/incoming/complete", "").ok());
  std::filesystem::create_directories(data_ + "/index");
  ASSERT_TRUE(FinishStoreCopy(data_).ok());
  EXPECT_TRUE(std::filesystem::exists(data_ + "/rocksdb"));
  EXPECT_FALSE(std::filesystem::exists(data_ + "/index"));
  EXPECT_FALSE(std::filesystem::exists(data_ + "/incoming"));
}

}  // namespace
}  // namespace retro
