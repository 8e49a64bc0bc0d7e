// From documents to tokens, chunks, vectors and neighbours, and what is refused.
#include "trainer/prepare.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "common/base/file.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_training.h"
#include "trainer/near_duplicates.h"

namespace retro {
namespace {

using testing::HasSubstr;

TEST(Prepare, TokensAndChunksTileTheDocuments) {
  const TemporaryFolder folder;
  const std::vector<std::string> texts = TinyTexts(40, 1);
  WriteDocuments(folder / "texts.jsonl", texts);
  ASSERT_TRUE(WriteTokenFiles(TinyTokenFiles(folder / "data", {folder / "texts.jsonl"}), Quietly).ok());
  const absl::StatusOr<DataSet> data = DataSet::Open(folder / "data");
  ASSERT_TRUE(data.ok()) << data.status();
  const auto tokenizer = LoadTokenizer(TinyTokenizerPath());
  ASSERT_EQ(data->header().documents, texts.size());
  for (size_t d = 0; d < texts.size(); ++d) {
    std::string text;
    for (uint64_t c = data->first_chunk(d); c < data->end_chunk(d); ++c) {
      const std::vector<TokenId> tokens = data->ChunkTokens(c);
      EXPECT_TRUE(tokens.size() == kTinyChunk || c + 1 == data->end_chunk(d)) << tokens.size();
      text += (*tokenizer)->Decode(tokens);
    }
    EXPECT_EQ(text, texts[d]);
    TokenId last = 0;
    data->CopyTokens(data->documents()[d].first_token + data->text_tokens(d), 1, &last);
    EXPECT_EQ(last, data->header().eos_id);
  }
}

TEST(Prepare, GoesOnAfterTheLastWholeFile) {
  const TemporaryFolder folder;
  const std::vector<std::string> files = {folder / "a.jsonl", folder / "b.jsonl"};
  WriteDocuments(files[0], TinyTexts(5, 1));
  std::ofstream(files[1]) << "{\"id\": 7}\n";
  const absl::Status broken = WriteTokenFiles(TinyTokenFiles(folder / "data", files), Quietly);
  EXPECT_THAT(std::string(broken.message()), HasSubstr("b.jsonl:1"));
  EXPECT_TRUE(absl::IsNotFound(DataSet::Open(folder / "data").status()));
  WriteDocuments(files[1], TinyTexts(5, 2));
  std::ofstream(folder / "data/partial/tokens.bin", std::ios::app) << "what a killed run left behind";
  ASSERT_TRUE(WriteTokenFiles(TinyTokenFiles(folder / "data", files), Quietly).ok());
  ASSERT_TRUE(WriteTokenFiles(TinyTokenFiles(folder / "whole", files), Quietly).ok());
  for (const char* name : {kTokensName, kDocumentsName, kChunksName, kDocumentListName, kDataHeaderName}) {
    EXPECT_EQ(*ReadFile(folder / "data/" + name), *ReadFile(folder / "whole/" + name)) << name;
  }
  // Done already; but not with other options, nor of other text. Files that are gone say nothing.
  EXPECT_TRUE(WriteTokenFiles(TinyTokenFiles(folder / "data", files), Quietly).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(WriteTokenFiles(TinyTokenFiles(folder / "data", {files[0]}), Quietly)));
  WriteDocuments(files[0], TinyTexts(6, 1));
  EXPECT_TRUE(absl::IsFailedPrecondition(WriteTokenFiles(TinyTokenFiles(folder / "data", files), Quietly)));
  std::filesystem::remove(files[0]);
  EXPECT_TRUE(WriteTokenFiles(TinyTokenFiles(folder / "data", files), Quietly).ok());
}

TEST(Prepare, GoesOnWithinAFile) {
  const TemporaryFolder folder;
  const std::string path = folder / "texts.jsonl";
  const std::vector<std::string> texts = TinyTexts(700, 1);
  WriteDocuments(path, texts);
  TokenFileOptions options = TinyTokenFiles(folder / "whole", {path});
  options.commit_seconds = 0;
  ASSERT_TRUE(WriteTokenFiles(options, Quietly).ok());
  std::ofstream(path, std::ios::app) << "broken\n";
  options.out = folder / "data";
  EXPECT_THAT(std::string(WriteTokenFiles(options, Quietly).message()), HasSubstr("texts.jsonl:701"));
  // Half of one text and half of another is what nobody asked for.
  std::vector<std::string> changed = texts;
  changed[0] = "another text";
  WriteDocuments(path, changed);
  const absl::Status other = WriteTokenFiles(options, Quietly);
  EXPECT_TRUE(absl::IsFailedPrecondition(other)) << other;
  EXPECT_THAT(std::string(other.message()), HasSubstr("texts.jsonl has changed since"));
  // Mended behind what was read.
  WriteDocuments(path, texts);
  ASSERT_TRUE(WriteTokenFiles(options, Quietly).ok());
  for (const char* name : {kTokensName, kDocumentsName, kChunksName, kDocumentListName, kDataHeaderName}) {
    EXPECT_EQ(*ReadFile(folder / "data/" + name), *ReadFile(folder / "whole/" + name)) << name;
  }
  // A file that has lost documents is none to go on with.
  std::ofstream(path, std::ios::app) << "broken\n";
  options.out = folder / "cut";
  EXPECT_FALSE(WriteTokenFiles(options, Quietly).ok());
  WriteDocuments(path, {texts[0]});
  const absl::Status cut = WriteTokenFiles(options, Quietly);
  EXPECT_TRUE(absl::IsFailedPrecondition(cut)) << cut;
}

TEST(Prepare, LeavesOutNearDuplicates) {
  const TemporaryFolder folder;
  std::string story;
  for (int i = 0; i < 60; ++i) story += "word" + std::to_string(i) + " ";
  const std::string other = "nothing of it is said elsewhere, whatever one reads in all of these books and papers";
  WriteDocuments(folder / "held_out.jsonl", {story});
  WriteDocuments(folder / "texts.jsonl", {"It begins: " + story + "and ends", other});
  TokenFileOptions options = TinyTokenFiles(folder / "data", {folder / "texts.jsonl"});
  options.leave_out_near_duplicates_of = folder / "held_out.jsonl";
  ASSERT_TRUE(WriteTokenFiles(options, Quietly).ok());
  EXPECT_EQ(DataSet::Open(folder / "data")->header().documents, 1U);
  NearDuplicates shingles;
  shingles.Add(story);
  EXPECT_EQ(shingles.Share(story), 1.0);
  EXPECT_EQ(shingles.Share(other), 0.0);
}

TEST(Prepare, LargestOfGroupsAreTheLargest) {
  at::manual_seed(5);
  for (const int64_t count : {3, 700, 5000}) {
    const at::Tensor scores = at::randn({7, count});
    const TopRows top = LargestOf(scores, 5);
    const int64_t kept = std::min<int64_t>(5, count);
    EXPECT_TRUE(at::equal(top.scores.narrow(1, 0, kept), std::get<0>(scores.topk(kept, 1)))) << count;
    EXPECT_TRUE(at::equal(scores.gather(1, top.rows.narrow(1, 0, kept)), top.scores.narrow(1, 0, kept))) << count;
  }
}

TEST(Prepare, SearchLeavesTheMachineItsMemory) {
  const auto memory = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t resident = ResidentBytesMax(at::kCPU);
  EXPECT_GT(resident, 0U);
  EXPECT_LE(resident, memory / 4);
}

TEST(Prepare, NeighboursAreTheNearestOfOtherDocuments) {
  const TemporaryFolder folder;
  MakeTinyData(folder / "data", TinyTexts(300, 4));
  const absl::StatusOr<DataSet> data = DataSet::Open(folder / "data");
  const absl::StatusOr<NeighbourTable> table = NeighbourTable::Open(folder / "data", *data);
  ASSERT_TRUE(table.ok()) << table.status();
  const absl::StatusOr<ChunkVectors> vectors = ChunkVectors::Open(*data);
  const auto chunks = static_cast<int64_t>(data->header().chunks);
  ASSERT_GT(chunks, 512);  // more than one block of queries
  const at::Tensor rows =
      at::from_blob(const_cast<char*>(vectors->file.bytes().data()), {chunks, 16}, at::kHalf).to(at::kDouble);
  const at::Tensor scores = at::matmul(rows, rows.t());
  for (int64_t c = 0; c < chunks; ++c) {
    const uint64_t document = data->chunks()[c].document;
    at::Tensor own = scores[c].clone();
    own.slice(0, static_cast<int64_t>(data->first_chunk(document)), static_cast<int64_t>(data->end_chunk(document)))
        .fill_(-2);
    const auto best = std::get<0>(own.topk(2));
    for (int j = 0; j < 2; ++j) {
      ASSERT_NEAR(scores[c][table->Of(c)[j]].item<double>(), best[j].item<double>(), 1e-5) << "chunk " << c;
      ASSERT_NE(data->chunks()[table->Of(c)[j]].document, document);
    }
  }
}

TEST(Prepare, SearchGoesOnWhereItWasKilled) {
  const TemporaryFolder folder;
  MakeTinyData(folder / "data", TinyTexts(300, 4));
  const std::string whole = *ReadFile(folder / "data/neighbours.bin");
  std::filesystem::rename(folder / "data/neighbours.json", folder / "data/partial/neighbours.json");
  std::filesystem::remove(folder / "data/neighbours.bin");
  ASSERT_GT(whole.size(), 2 * 512 * 2 * sizeof(uint32_t));
  // Two blocks of queries: the first is trusted, so it can be told from a search that begins again.
  std::string begun = whole.substr(0, 2 * 512 * 2 * sizeof(uint32_t));
  begun[0] = static_cast<char>(begun[0] ^ 1);
  ASSERT_TRUE(WriteFileAtomically(folder / "data/partial/neighbours.bin", begun).ok());
  const absl::StatusOr<DataSet> data = DataSet::Open(folder / "data");
  const std::vector<const DataSet*> databases = {&*data};
  ASSERT_TRUE(FindNearestChunks(*data, databases, {.k = 2}, Quietly).ok());
  std::string expected = whole;
  expected[0] = begun[0];
  EXPECT_EQ(*ReadFile(folder / "data/neighbours.bin"), expected);
}

TEST(Prepare, TakesNeighboursFromElsewhereAndRefusesOthers) {
  const TemporaryFolder folder;
  MakeTinyData(folder / "found", TinyTexts(60, 4));
  PrepareOptions options;
  options.tokens = TinyTokenFiles(folder / "data", {folder / "found/texts.jsonl"});
  options.neighbours_from = folder / "found";
  ASSERT_TRUE(Prepare(options, Quietly).ok());
  const absl::StatusOr<DataSet> data = DataSet::Open(folder / "data");
  EXPECT_TRUE(NeighbourTable::Open(folder / "data", *data).ok());
  EXPECT_EQ(*ReadFile(folder / "data/neighbours.bin"), *ReadFile(folder / "found/neighbours.bin"));

  WriteDocuments(folder / "other.jsonl", TinyTexts(60, 9));
  options.tokens = TinyTokenFiles(folder / "other", {folder / "other.jsonl"});
  const absl::Status other = Prepare(options, Quietly);
  EXPECT_TRUE(absl::IsFailedPrecondition(other));
  EXPECT_THAT(std::string(other.message()), HasSubstr("another token file"));
}

TEST(Prepare, NeighboursOfAStoreThatHasChangedAreRefused) {
  const TemporaryFolder folder;
  MakeTinyData(folder / "store", TinyTexts(40, 4));
  MakeTinyData(folder / "data", TinyTexts(20, 5));
  const absl::StatusOr<DataSet> data = DataSet::Open(folder / "data");
  {
    const absl::StatusOr<DataSet> store = DataSet::Open(folder / "store");
    const std::vector<const DataSet*> databases = {&*store};
    ASSERT_TRUE(FindNearestChunks(*data, databases, {.k = 2}, Quietly).ok());
  }
  ASSERT_TRUE(NeighbourTable::Open(folder / "data", *data).ok());
  std::filesystem::remove_all(folder / "store");
  MakeTinyData(folder / "store", TinyTexts(41, 4));
  const absl::Status status = NeighbourTable::Open(folder / "data", *data).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("find them again"));
}

TEST(Prepare, DamagedFilesAreNamed) {
  const TemporaryFolder folder;
  MakeTinyData(folder / "data", TinyTexts(20, 4));
  for (const std::string name : {kTokensName, kDocumentsName, kChunksName}) {
    const std::string path = folder / "data/" + name;
    const std::string whole = *ReadFile(path);
    std::filesystem::resize_file(path, whole.size() - 1);
    const absl::Status status = DataSet::Open(folder / "data").status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    ASSERT_TRUE(WriteFileAtomically(path, whole).ok());
  }
  const absl::StatusOr<DataSet> data = DataSet::Open(folder / "data");
  const std::string path = folder / "data/neighbours.bin";
  std::string table = *ReadFile(path);
  std::filesystem::resize_file(path, table.size() - 4);
  EXPECT_THAT(std::string(NeighbourTable::Open(folder / "data", *data).status().message()), HasSubstr("truncated"));
  table[3] = 0x7f;  // a chunk that is not there
  ASSERT_TRUE(WriteFileAtomically(path, table).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(NeighbourTable::Open(folder / "data", *data).status()));
  const std::string header_path = folder / "data/neighbours.json";
  std::string header = *ReadFile(header_path);
  header.replace(header.find(data->header().tokenizer_fingerprint), 4, "0000");
  ASSERT_TRUE(WriteFileAtomically(header_path, header).ok());
  EXPECT_THAT(std::string(NeighbourTable::Open(folder / "data", *data).status().message()),
              HasSubstr("another tokenizer"));
}

}  // namespace
}  // namespace retro
