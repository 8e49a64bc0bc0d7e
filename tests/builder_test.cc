// retro-build: stores built from documents, cut into other shards, embedded anew, and read as training data.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "builder/command.h"
#include "common/document/half.h"
#include "common/tokenizer/chunker.h"
#include "tests/builder_fixture.h"
#include "trainer/batch.h"
#include "trainer/neighbour_table.h"
#include "trainer/prepare.h"

namespace retro {
namespace {

using testing::HasSubstr;

constexpr size_t kTexts = 300;  // more than one group

class BuilderTest : public testing::Test {
 protected:
  BuilderTest() : texts_(DistinctTexts(kTexts, 7)) {
    spdlog::set_level(spdlog::level::off);
    WriteDocuments(folder_ / "a.jsonl", texts_);
    std::ofstream(folder_ / "b.jsonl") << R"({"id":"3","title":"t","text":"another text of the third","n":5})"
                                       << "\n"
                                       << R"({"id":"x","text":"a document of its own","source":"s"})"
                                       << "\n";
    written_ = std::filesystem::last_write_time(folder_ / "a.jsonl") - std::chrono::hours(1);
    for (const char* name : {"a.jsonl", "b.jsonl"}) std::filesystem::last_write_time(folder_ / name, written_);
  }

  std::string operator/(const std::string& name) const { return folder_ / name; }

  // Shard `shard` of the cluster file, or a standalone store.
  int Build(const std::string& out, const std::string& cluster_file = "", int shard = 0) {
    std::vector<std::string> arguments = {"shard", folder_ / "a.jsonl", folder_ / "b.jsonl", "--out", folder_ / out};
    if (!cluster_file.empty()) {
      arguments = Joined(arguments, {"--cluster-file", folder_ / cluster_file, "--shard", StrCat(shard)});
    }
    return RunBuilder(Joined(arguments, ContentArguments()));
  }

  std::vector<std::string> BuildCluster(const std::string& name, uint32_t shards) {
    WriteClusterFile(folder_ / (name + ".json"), shards, 'a');
    std::vector<std::string> folders;
    for (uint32_t i = 0; i < shards; ++i) {
      EXPECT_EQ(Build(StrCat(name, i), name + ".json", static_cast<int>(i)), 0);
      folders.push_back(folder_ / StrCat(name, i));
    }
    return folders;
  }

  // Exit code 1 and one line.
  std::string ErrorOf(const std::vector<std::string>& arguments) {
    testing::internal::CaptureStderr();
    EXPECT_EQ(RunBuilder(arguments), 1);
    const std::string error = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
    return error;
  }

  const TemporaryFolder folder_;
  const std::vector<std::string> texts_;
  std::filesystem::file_time_type written_;  // of the files
};

TEST_F(BuilderTest, BuildsAStoreThatCanBeServed) {
  ASSERT_EQ(Build("store"), 0);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "store.unfinished"));
  EXPECT_EQ(DigestOf(folder_ / "store").documents, kTexts + 1);
  const auto shard = OpenBuilt(folder_ / "store");
  shardpb::GetDocumentRequest request;
  request.set_document_id("3");  // of two the later wins
  const auto third = shard->GetDocument(request, CallContext());
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(third->document().text(), "another text of the third");
  // When the newest file was changed, however late it is now.
  const auto since_epoch = std::chrono::file_clock::to_sys(written_).time_since_epoch();
  EXPECT_EQ(third->info().write_time().seconds(), std::chrono::floor<std::chrono::seconds>(since_epoch).count());
  EXPECT_EQ(third->document().metadata().at("n").values(0).int_value(), 5);
  request.set_document_id("5");
  EXPECT_EQ(shard->GetDocument(request, CallContext())->document().text(), texts_[5]);
}

TEST_F(BuilderTest, BuildsOfTheSameAreEqual) {
  ASSERT_EQ(Build("one"), 0);
  ASSERT_EQ(Build("two"), 0);
  EXPECT_EQ(DigestOf(folder_ / "one").sha256, DigestOf(folder_ / "two").sha256);
  ASSERT_EQ(Build("one"), 0);                                            // complete: nothing to do
  std::filesystem::rename(folder_ / "one", folder_ / "one.unfinished");  // as if killed before it was moved
  ASSERT_EQ(Build("one"), 0);
  EXPECT_EQ(DigestOf(folder_ / "one").sha256, DigestOf(folder_ / "two").sha256);
}

TEST_F(BuilderTest, ShardsHoldTheirSlotsAlone) {
  std::set<std::string> ids;
  uint64_t documents = 0;
  const std::vector<std::string> folders = BuildCluster("c", 3);
  for (size_t i = 0; i < folders.size(); ++i) {
    const auto store = Store::OpenSnapshot(folders[i]);
    EXPECT_EQ((*store)->identity().shard, i);
    EXPECT_EQ((*store)->identity().shard_count, 3U);
    EXPECT_EQ((*store)->identity().cluster, "built");
    ASSERT_TRUE((*store)
                    ->ScanDocuments(0, std::nullopt, nullptr,
                                    [&](uint32_t slot, const shardpb::DocumentRecord& record) {
                                      EXPECT_EQ(slot * 3 / kSlotCount, i);
                                      ids.insert(record.document().id());
                                      ++documents;
                                      return true;
                                    })
                    .ok());
  }
  EXPECT_EQ(ids.size(), kTexts + 1);
  EXPECT_EQ(documents, kTexts + 1);
}

void ExpectEqual(const std::vector<std::string>& answers, const std::vector<std::string>& expected) {
  ASSERT_EQ(answers.size(), expected.size());
  for (size_t i = 0; i < answers.size(); ++i) ASSERT_EQ(answers[i], expected[i]) << "answer " << i;
}

TEST_F(BuilderTest, ReshardedStoresAnswerAlike) {
  const std::vector<std::string> three = BuildCluster("c", 3);
  const std::vector<std::string> expected = AnswersOf(three, texts_);
  ASSERT_FALSE(expected.empty());
  WriteClusterFile(folder_ / "two.json", 2, 'b');
  std::vector<std::string> two;
  for (const char* shard : {"0", "1"}) {
    two.push_back(folder_ / StrCat("two", shard));
    const std::vector<std::string> to = {"--out", two.back(), "--cluster-file", folder_ / "two.json", "--shard", shard};
    ASSERT_EQ(RunBuilder(Joined(Joined({"reshard"}, three), to)), 0);
  }
  ExpectEqual(AnswersOf(two, texts_), expected);
  // Whatever number of shards it comes from.
  ASSERT_EQ(RunBuilder(Joined(Joined({"reshard"}, three), {"--out", folder_ / "one"})), 0);
  ASSERT_EQ(RunBuilder({"reshard", two[1], two[0], "--out", folder_ / "other"}), 0);
  ExpectEqual(AnswersOf({folder_ / "one"}, texts_), expected);
  EXPECT_EQ(DigestOf(folder_ / "one").sha256, DigestOf(folder_ / "other").sha256);
}

// By document: what its chunks are, and when it was written.
std::map<std::string, std::string> ContentOf(const std::string& folder) {
  const auto store = Store::OpenSnapshot(folder);
  std::map<std::string, std::string> content;
  const absl::Status scanned = (*store)->ScanDocuments(
      0, std::nullopt, nullptr, [&](uint32_t, const shardpb::DocumentRecord& record) -> absl::StatusOr<bool> {
        std::string& one = content[record.document().id()];
        one = StrCat(record.write_time().seconds(), record.document().title(), ":");
        std::vector<uint64_t> ids;
        for (uint32_t i = 0; i < record.chunks().count(); ++i) {
          ids.push_back(ChunkIdAt(record.chunks().first_chunk_id(), i));
        }
        const auto rows = (*store)->ReadChunks(0, ids, nullptr);
        const auto vectors = (*store)->ReadVectors(0, ids, nullptr);
        for (size_t i = 0; i < ids.size(); ++i) one += (*rows)[i]->SerializeAsString() + (*vectors)[i];
        return true;
      });
  EXPECT_TRUE(scanned.ok()) << scanned;
  return content;
}

TEST_F(BuilderTest, ReembeddedStoresAreAsBuiltWithTheOthers) {
  const std::vector<std::string> three = BuildCluster("c", 3);
  ASSERT_EQ(
      RunBuilder(Joined(Joined({"reembed"}, three), Joined({"--out", folder_ / "anew"}, ContentArguments(20, 8)))), 0);
  ASSERT_EQ(RunBuilder(Joined({"shard", folder_ / "a.jsonl", folder_ / "b.jsonl", "--out", folder_ / "direct"},
                              ContentArguments(20, 8))),
            0);
  EXPECT_EQ(ContentOf(folder_ / "anew"), ContentOf(folder_ / "direct"));
  OpenBuilt(folder_ / "anew", 8);
}

TEST_F(BuilderTest, WhatCannotBeReadIsLeftOutAndSaid) {
  std::ofstream(folder_ / "bad.jsonl") << "{\"id\":\"a\",\"text\":\"good\"}\nno json\n{\"id\":\"b\",\"text\":\"\"}\n";
  const std::vector<std::string> command =
      Joined({"shard", folder_ / "bad.jsonl", "--out", folder_ / "store"}, ContentArguments());
  testing::internal::CaptureStderr();
  EXPECT_EQ(RunBuilder(command), 1);
  const std::string error = testing::internal::GetCapturedStderr();
  EXPECT_THAT(error, HasSubstr("bad.jsonl:2"));
  EXPECT_THAT(error, HasSubstr("is built, without 2 documents"));
  EXPECT_EQ(DigestOf(folder_ / "store").documents, 1U);
  EXPECT_THAT(ErrorOf(command), HasSubstr("without 2 documents"));  // still, though there is nothing to do
}

TEST_F(BuilderTest, RefusesWhatDoesNotFit) {
  ASSERT_EQ(Build("store"), 0);
  const std::vector<std::string> out = {"--out", folder_ / "store"};
  const std::string a = folder_ / "a.jsonl";
  EXPECT_THAT(ErrorOf(Joined(Joined({"shard", a}, out), ContentArguments())), HasSubstr("other documents or options"));
  EXPECT_THAT(ErrorOf(Joined({"shard", a, "--out", folder_.path()}, ContentArguments())),
              HasSubstr("is there already"));
  EXPECT_THAT(ErrorOf(Joined({"shard", folder_ / "none", "--out", folder_ / "n"}, ContentArguments())),
              HasSubstr("none"));
  EXPECT_THAT(ErrorOf(Joined({"shard", a, "--out", folder_ / "n", "--shard", "1"}, ContentArguments())),
              HasSubstr("--cluster-file"));
  const std::vector<std::string> three = BuildCluster("c", 3);
  EXPECT_THAT(ErrorOf({"reshard", three[0], three[2], "--out", folder_ / "n"}), HasSubstr("name every shard"));
  EXPECT_THAT(ErrorOf({"reshard", three[0], folder_ / "store", "--out", folder_ / "n"}), HasSubstr("of one store"));
  EXPECT_THAT(
      ErrorOf(Joined(Joined({"reshard"}, three), {"--out", folder_ / "n", "--cluster-file", folder_ / "c.json"})),
      HasSubstr("store_id"));
  EXPECT_THAT(ErrorOf({"reshard", folder_ / "none", "--out", folder_ / "n"}), HasSubstr("none"));
}

// ---------------------------------------------------------------- training data

TEST_F(BuilderTest, TrainingDataIsWhatTheStoreHolds) {
  const std::vector<std::string> three = BuildCluster("c", 3);
  const std::vector<std::string> to = {"--out", folder_ / "data", "--tokenizer", TinyTokenizerPath()};
  ASSERT_EQ(RunBuilder(Joined(Joined({"training-data"}, three), to)), 0);
  const auto data = DataSet::Open(folder_ / "data");
  ASSERT_TRUE(data.ok()) << data.status();
  ASSERT_EQ(data->header().documents, kTexts + 1);
  const auto vectors = ChunkVectors::Open(*data);
  ASSERT_TRUE(vectors.ok()) << vectors.status();
  const auto ids = DocumentIds(*data);
  const auto tokenizer = LoadTokenizer(TinyTokenizerPath());
  HashEmbedder embedder(kBuildDimension);
  for (uint64_t d = 0; d < ids->size(); ++d) {
    std::string text;
    for (uint64_t c = data->first_chunk(d); c < data->end_chunk(d); ++c) {
      const std::string chunk = (*tokenizer)->Decode(data->ChunkTokens(c));
      const std::vector<TokenSequence> one = {embedder.Encode(chunk, TextKind::kPassage)};
      const size_t bytes = kBuildDimension * kHalfBytes;
      ASSERT_EQ(vectors->file.bytes().substr(c * bytes, bytes), ToHalf(*embedder.Embed(one))) << (*ids)[d];
      text += chunk;
    }
    const std::string expected = (*ids)[d] == "x"   ? "a document of its own"
                                 : (*ids)[d] == "3" ? "another text of the third"
                                                    : texts_[std::stoul((*ids)[d])];
    EXPECT_EQ(text, expected);
  }
}

// The nearest of other documents, found in the store's own data and for other data in the store's.
TEST_F(BuilderTest, PrepareFindsNeighboursInAStore) {
  ASSERT_EQ(Build("store"), 0);
  ASSERT_EQ(
      RunBuilder({"training-data", folder_ / "store", "--out", folder_ / "data", "--tokenizer", TinyTokenizerPath()}),
      0);
  PrepareOptions own;
  own.tokens.out = folder_ / "data";
  ASSERT_TRUE(Prepare(own, Quietly).ok());
  const auto data = DataSet::Open(folder_ / "data");
  const auto table = NeighbourTable::Open(folder_ / "data", *data);
  ASSERT_TRUE(table.ok()) << table.status();
  for (uint64_t c = 0; c < data->header().chunks; ++c) {
    for (const uint32_t n : table->Of(c)) EXPECT_NE(data->chunks()[n].document, data->chunks()[c].document);
  }
  MakeTinyData(folder_ / "train", texts_);  // the same documents, in another order
  const auto train = DataSet::Open(folder_ / "train");
  const std::vector<const DataSet*> databases = {&*data};
  ASSERT_TRUE(FindNearestChunks(*train, databases, {.k = 2}, Quietly).ok());
  const auto found = NeighbourTable::Open(folder_ / "train", *train);
  ASSERT_TRUE(found.ok()) << found.status();
  const auto ids = DocumentIds(*data), train_ids = DocumentIds(*train);
  for (uint64_t c = 0; c < train->header().chunks; ++c) {
    for (const uint32_t n : found->Of(c)) {
      EXPECT_NE((*ids)[data->chunks()[n].document], (*train_ids)[train->chunks()[c].document]);
    }
  }
}

// A store cuts no character in two: chunks in the middle of a document may be short, here and in what trains on it.
TEST_F(BuilderTest, ChunksThatEndBeforeACharacterStayAsTheyAre) {
  std::string text = "ab";
  for (int i = 0; i < 40; ++i) text += "\xF0\x9F\x9C\x81";  // four tokens each
  std::ofstream(folder_ / "rare.jsonl") << R"({"id":"r","text":")" << text << "\"}\n"
                                        << R"({"id":"s","text":"plain"})";
  ASSERT_EQ(RunBuilder(Joined({"shard", folder_ / "rare.jsonl", "--out", folder_ / "store"}, ContentArguments())), 0);
  ASSERT_EQ(
      RunBuilder({"training-data", folder_ / "store", "--out", folder_ / "data", "--tokenizer", TinyTokenizerPath()}),
      0);
  const auto data = DataSet::Open(folder_ / "data");
  ASSERT_TRUE(data.ok()) << data.status();
  const auto tokenizer = LoadTokenizer(TinyTokenizerPath());
  const std::vector<TextChunk> chunks = CutIntoChunks(**tokenizer, text, 8);
  const auto ids = DocumentIds(*data);
  const uint64_t document = (*ids)[0] == "r" ? 0 : 1;
  EXPECT_FALSE(data->IsEvenlyCut(document));
  ASSERT_EQ(data->end_chunk(document) - data->first_chunk(document), chunks.size());
  for (size_t c = 0; c < chunks.size(); ++c) {
    EXPECT_EQ(data->ChunkTokens(data->first_chunk(document) + c), chunks[c].tokens);
  }
  // A window's labels are the text, one after the other, whatever stands between them.
  std::vector<int64_t> expected;
  for (const DocumentRow& row : data->documents()) {
    const uint64_t tokens = data->text_tokens(&row - data->documents().data());
    for (uint64_t t = 1; t <= tokens; ++t) {
      TokenId id = 0;
      data->CopyTokens(row.first_token + t, 1, &id);
      expected.push_back(id);
    }
  }
  const ModelConfig config = TinyTrainingConfig();
  BatchMaker batches(*data, nullptr, config,
                     {.windows = 1, .length = 2 * kTinyChunk, .offset_share = 0, .shuffle = false});
  std::vector<int64_t> labels;
  for (uint64_t b = 0; b < batches.windows_per_epoch(); ++b) {
    const at::Tensor window = batches.Make(b).labels;
    for (int64_t t = 0; t < window.numel(); ++t) {
      if (window[0][t].item<int64_t>() != kIgnoredLabel) labels.push_back(window[0][t].item<int64_t>());
    }
  }
  ASSERT_GT(labels.size(), expected.size() / 2);
  expected.resize(labels.size());
  EXPECT_EQ(labels, expected);
}

}  // namespace
}  // namespace retro
