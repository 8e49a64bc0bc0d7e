// Every file of a small store missing, with bytes flipped and ends cut off: either all that was acknowledged is there,
// or the store does not open and says which file.
//
// RETRO_DAMAGE_STRIDE=1 tries every byte; the default tries the ends of files densely and the rest in strides.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/store/store.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kSeed = 20'577;
constexpr int kDocuments = 5;
constexpr size_t kChunkBytes = 16;
constexpr size_t kDenseBytes = 64;  // at a file's end: the last record's header lies there
constexpr size_t kStrideDefault = 29;
constexpr size_t kTailBytes = 800;  // of a table: properties, the index of such blocks, the footer
constexpr int kDimension = 4;

std::string Text(int document) { return StrCat("document ", document, " says something that nobody else says"); }

shardpb::DocumentChange MakeChange(int document) {
  shardpb::DocumentChange change;
  change.mutable_document()->set_id(StrCat("id", document));
  change.mutable_document()->set_text(Text(document));
  for (size_t begin = 0; begin < Text(document).size(); begin += kChunkBytes) {
    shardpb::ChunkContent& chunk = *change.add_chunks();
    chunk.set_end(std::min(Text(document).size(), begin + kChunkBytes));
    chunk.set_vector_fp16(ToHalf(std::vector<float>(kDimension, static_cast<float>(document))));
  }
  return change;
}

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

class StoreDamageTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* stride = std::getenv("RETRO_DAMAGE_STRIDE");
    if (stride != nullptr) stride_ = std::strtoul(stride, nullptr, 10);
    std::printf("seed %u, stride %zu\n", kSeed, stride_);
    auto store = Store::Open(Options(whole_));
    ASSERT_TRUE(store.ok()) << store.status();
    Transaction transaction = (*store)->Begin();
    transaction.CreateCollection(pb::CollectionSpec());
    ASSERT_TRUE((*store)->Commit(std::move(transaction)).ok());
    for (int i = 0; i < kDocuments; ++i) {
      transaction = (*store)->Begin();
      transaction.PutDocument(0, MakeChange(i), std::nullopt);
      ASSERT_TRUE((*store)->Commit(std::move(transaction)).ok());
    }
  }

  static StoreOptions Options(const std::string& path) {
    StoreOptions options;
    options.path = path;
    return options;
  }

  // Moves what the log holds into tables, as every start does.
  void Reopen() { ASSERT_TRUE(Store::Open(Options(whole_)).ok()); }
  // With the same text again, in new rows.
  void ReplaceAll() {
    auto store = Store::Open(Options(whole_));
    ASSERT_TRUE(store.ok()) << store.status();
    for (int i = 0; i < kDocuments; ++i) {
      Transaction transaction = (*store)->Begin();
      const auto old = transaction.FindDocument(0, StrCat("id", i));
      ASSERT_TRUE(old.ok() && old->has_value());
      transaction.PutDocument(0, MakeChange(i), *old);
      ASSERT_TRUE((*store)->Commit(std::move(transaction)).ok());
    }
    changes_ += kDocuments;
  }

  std::vector<fs::path> Files(const std::function<bool(const std::string& name)>& chosen) const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(whole_)) {
      if (entry.is_regular_file() && chosen(entry.path().filename())) {
        files.push_back(fs::relative(entry.path(), whole_));
      }
    }
    return files;
  }

  void MakeCopy() const {
    fs::remove_all(damaged_);
    fs::copy(whole_, damaged_, fs::copy_options::recursive);
  }

  // Opens a copy in which `file` has these bytes. OK: everything is there.
  absl::Status OpenWith(const fs::path& file, const std::string& bytes) const {
    MakeCopy();
    WriteFile(fs::path(damaged_) / file, bytes);
    return OpenCopy();
  }
  absl::Status OpenCopy() const {
    auto store = Store::Open(Options(damaged_));
    RETRO_RETURN_IF_ERROR(store.status());
    EXPECT_EQ((*store)->last_position().number(), changes_);
    for (int i = 0; i < kDocuments; ++i) {
      RETRO_ASSIGN_OR_RETURN(const auto record, (*store)->ReadDocument(0, StrCat("id", i), nullptr));
      EXPECT_TRUE(record.has_value()) << "acknowledged, and gone without a word";
      if (!record.has_value()) continue;
      RETRO_ASSIGN_OR_RETURN(const std::string text, (*store)->ReadText(0, *record, nullptr));
      EXPECT_EQ(text, Text(i));
      const std::vector<uint64_t> first = {record->chunks().first_chunk_id()};
      RETRO_ASSIGN_OR_RETURN(const auto vectors, (*store)->ReadVectors(0, first, nullptr));
      EXPECT_EQ(vectors[0], MakeChange(i).chunks(0).vector_fp16());
    }
    return absl::OkStatus();
  }

  void Check(const fs::path& file, const std::string& bytes, const std::string& what) {
    SCOPED_TRACE(StrCat(file.string(), ": ", what));
    const absl::Status status = OpenWith(file, bytes);
    ++tried_;
    if (status.ok()) return;
    ++refused_;
    EXPECT_EQ(ReasonOf(status), Reason::kStoreDamaged) << status;
    EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr(damaged_)) << "no file is named";
  }

  // Started twice without it, and then with it again.
  void Lose(const fs::path& file) {
    SCOPED_TRACE(StrCat(file.string(), " is missing"));
    MakeCopy();
    fs::remove(fs::path(damaged_) / file);
    for (int start = 0; start < 2; ++start) {
      const absl::Status status = OpenCopy();
      ++tried_;
      if (status.ok()) continue;
      ++refused_;
      EXPECT_EQ(ReasonOf(status), Reason::kStoreDamaged) << status;
      EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr(damaged_)) << "no file is named";
    }
    fs::copy_file(fs::path(whole_) / file, fs::path(damaged_) / file, fs::copy_options::overwrite_existing);
    const absl::Status status = OpenCopy();
    EXPECT_TRUE(status.ok()) << status;
  }

  void FlipAndCut(const fs::path& file) {
    const std::string bytes = ReadFile(fs::path(whole_) / file);
    std::mt19937 random(kSeed);
    for (size_t i = 0; i < bytes.size() && !HasFailure(); ++i) {
      if (i + kDenseBytes < bytes.size() && i % stride_ != 0) continue;
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 + random() % 255));
      Check(file, flipped, StrCat("byte ", i, " of ", bytes.size(), " flipped"));
      Check(file, bytes.substr(0, i), StrCat("cut at ", i, " of ", bytes.size()));
    }
  }

  const TemporaryFolder folder_;
  const std::string whole_ = folder_ / "whole";
  const std::string damaged_ = folder_ / "damaged";
  size_t stride_ = kStrideDefault;
  uint64_t changes_ = kDocuments + 1;
  int tried_ = 0, refused_ = 0;
};

bool IsLog(const std::string& name) { return name.ends_with(".log"); }
// RocksDB writes OPTIONS for people.
bool IsRead(const std::string& name) { return !name.starts_with("OPTIONS"); }

TEST_F(StoreDamageTest, TheLogLosesNothingInSilence) {
  const std::vector<fs::path> logs = Files(IsLog);
  ASSERT_EQ(logs.size(), 1u) << "this is about what is in the log alone";
  FlipAndCut(logs[0]);
  std::printf("%d of %d refused\n", refused_, tried_);
  EXPECT_EQ(refused_, tried_) << "every byte of the log was acknowledged";
}

TEST_F(StoreDamageTest, NoFileOfAReopenedStoreLosesAnythingInSilence) {
  Reopen();
  for (const fs::path& file : Files(IsRead)) FlipAndCut(file);
  std::printf("%d of %d refused\n", refused_, tried_);
  EXPECT_GT(refused_, tried_ / 2);
}

// RocksDB makes a new database where CURRENT is gone, and takes what a log held that is gone for never written; either
// does away with what is left.
TEST_F(StoreDamageTest, NoFileIsMissedInSilenceNorIsWhatIsLeftTouched) {
  for (int starts = 0; starts < 3; ++starts) {
    SCOPED_TRACE(StrCat("after ", starts, " starts"));
    if (starts == 1) Reopen();
    if (starts == 2) ReplaceAll();  // so that an older log may lie beside the newest
    for (const fs::path& file : Files([](const std::string&) { return true; })) Lose(file);
  }
  std::printf("%d of %d refused\n", refused_, tried_);
  EXPECT_GT(refused_, tried_ / 3);
}

// Tables alone are enough, with a mark beside them or, as of older versions, without.
TEST_F(StoreDamageTest, NoNewStoreIsMadeOverTheRemainsOfOne) {
  Reopen();
  for (const bool marked : {true, false}) {
    MakeCopy();
    if (!marked) fs::remove(fs::path(damaged_) / "acknowledged");
    for (const auto& entry : fs::directory_iterator(fs::path(damaged_) / "rocksdb")) {
      if (entry.path().extension() != ".sst") fs::remove(entry.path());
    }
    const auto tables = std::distance(fs::directory_iterator(fs::path(damaged_) / "rocksdb"), {});
    EXPECT_GT(tables, 0);
    for (int start = 0; start < 2; ++start) {
      EXPECT_EQ(ReasonOf(Store::Open(Options(damaged_)).status()), Reason::kStoreDamaged) << "marked: " << marked;
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(damaged_) / "rocksdb"), {}), tables);
  }
  // What a process leaves that died while it made the first store: nothing that could be lost.
  fs::remove_all(damaged_);
  fs::create_directories(fs::path(damaged_) / "rocksdb");
  WriteFile(fs::path(damaged_) / "rocksdb" / "MANIFEST-000001", "");
  const auto store = Store::Open(Options(damaged_));
  EXPECT_TRUE(store.ok()) << store.status();
}

// RocksDB stops writing then. Were the store opened anew for each write, reads would wait for that again and again, and
// writes would be acknowledged beside the damage.
TEST_F(StoreDamageTest, DamageThatACompactionMeetsEndsWritesAndNotReads) {
  Reopen();
  ReplaceAll();
  const std::string vector = MakeChange(kDocuments - 1).chunks(0).vector_fp16();
  bool flipped = false;
  for (const fs::path& table : Files([](const std::string& name) { return name.ends_with(".sst"); })) {
    std::string bytes = ReadFile(fs::path(whole_) / table);
    const size_t place = bytes.find(vector);
    if (place == std::string::npos) continue;
    bytes[place] = static_cast<char>(bytes[place] ^ 1);
    WriteFile(fs::path(whole_) / table, bytes);
    flipped = true;
  }
  ASSERT_TRUE(flipped) << "vectors are not compressed";
  StoreOptions options = Options(whole_);
  options.verify_tables = false;
  const auto store = Store::Open(options);
  ASSERT_TRUE(store.ok()) << store.status();
  const auto at = (*store)->TakeSnapshot();
  EXPECT_EQ(ReasonOf((*store)->Compact()), Reason::kStoreDamaged);
  for (int i = 0; i < 2; ++i) {
    Transaction transaction = (*store)->Begin();
    transaction.PutDocument(0, MakeChange(kDocuments + i), std::nullopt);
    const absl::Status status = (*store)->Commit(std::move(transaction));
    EXPECT_EQ(ReasonOf(status), Reason::kStoreDamaged) << status;
    const auto read = (*store)->ReadDocument(0, "id0", at.get());
    EXPECT_TRUE(read.ok()) << "opened anew: " << read.status();
  }
  EXPECT_TRUE((*store)->read_only());
  EXPECT_EQ((*store)->last_position().number(), changes_);
}

// RocksDB reads a table's properties before it has compared their checksum, and a build of it with assertions ends the
// process over some of the bits.
TEST_F(StoreDamageTest, NoBitInTheTailOfATableEndsTheProcess) {
  Reopen();
  const std::vector<fs::path> tables = Files([](const std::string& name) { return name.ends_with(".sst"); });
  ASSERT_FALSE(tables.empty());
  fs::copy(whole_, damaged_, fs::copy_options::recursive);
  const std::string bytes = ReadFile(fs::path(whole_) / tables[0]);
  ASSERT_GT(bytes.size(), kTailBytes);
  for (size_t i = bytes.size() - kTailBytes; i < bytes.size() && !HasFailure(); ++i) {
    SCOPED_TRACE(StrCat(tables[0].string(), ": byte ", i, " of ", bytes.size(), ", its highest bit"));
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x80);
    WriteFile(fs::path(damaged_) / tables[0], flipped);
    const auto store = Store::OpenSnapshot(damaged_);
    ++tried_;
    if (store.ok()) continue;  // of no effect
    ++refused_;
    EXPECT_EQ(ReasonOf(store.status()), Reason::kStoreDamaged) << store.status();
    EXPECT_THAT(std::string(MessageOf(store.status())), testing::HasSubstr(damaged_)) << "no file is named";
  }
  std::printf("%d of %d refused\n", refused_, tried_);
  EXPECT_GT(refused_, tried_ / 2);
}

}  // namespace
}  // namespace retro
