// Kills a process that writes to a shard, again and again at random moments, and looks at what it left: everything
// acknowledged is there, byte for byte; what was under way is there whole or not at all, and repeating it leaves it
// there once. One of the writers makes and drops a collection of its own all the time.
//
// RETRO_CRASH_ROUNDS and RETRO_CRASH_SEED change how often and which moments.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "common/tokenizer/utf8.h"
#include "retriever_service/shard/local_shard.h"
#include "retriever_service/shard/snapshots.h"
#include "retriever_service/store/store.h"

namespace retro {
namespace {

constexpr uint32_t kDimension = 8;
constexpr int kWriters = 4;
constexpr int kDocumentsEach = 12;
constexpr size_t kChunkBytes = 40;
constexpr int kRoundsDefault = 200;
constexpr uint32_t kSeedDefault = 4711;
constexpr uint32_t kRoundsASnapshot = 4;  // one of so many makes them
constexpr int kAcknowledgementFd = 3;     // in the child
constexpr int kNamedWriter = kWriters;    // the one that has a collection of its own
constexpr char kNamed[] = "named";        // and its name
constexpr int kTheCollection = -1;        // in place of a document: of it a state tells whether it is present
constexpr uint32_t kChangesADrop = 20;

// A document's state is two numbers: the text is a function of its id and the first, the title of the second.
struct State {
  bool present = false;
  uint32_t text_version = 0;
  uint32_t title_version = 0;
  bool operator==(const State&) const = default;
};

// What the child reports, before and after each change; one atomic write to the pipe.
struct Report {
  bool acknowledged;
  int writer;
  int document;
  State state;
};

std::string DocumentId(int writer, int document) { return StrCat("document-", writer, "-", document); }

bool IsInNamed(const std::string& id) { return id.starts_with(StrCat("document-", kNamedWriter, "-")); }
std::string CollectionOf(const std::string& id) { return IsInNamed(id) ? kNamed : ""; }

std::mt19937 RandomOf(const std::string& id, uint32_t version, uint32_t what) {
  std::seed_seq seed{static_cast<uint32_t>(std::hash<std::string>()(id)), version, what};
  return std::mt19937(seed);
}

pb::Document MakeDocument(const std::string& id, const State& state) {
  static constexpr const char* kWords[] = {"retro ", "Nachbar ", "größer ", "数据 ",
                                           "\n",     "😀",        "x",       "the quick brown fox "};
  std::mt19937 random = RandomOf(id, state.text_version, 0);
  pb::Document document;
  document.set_id(id);
  document.set_title(StrCat("title ", state.title_version));
  (*document.mutable_metadata())["version"].add_values()->set_int_value(state.title_version);
  const size_t words = 1 + random() % 300;
  for (size_t i = 0; i < words; ++i) *document.mutable_text() += kWords[random() % std::size(kWords)];
  return document;
}

std::vector<float> MakeVector(const std::string& id, const State& state, int chunk) {
  std::mt19937 random = RandomOf(id, state.text_version, 1 + chunk);
  std::vector<float> vector(kDimension);
  for (float& x : vector)
    x = static_cast<float>(static_cast<int>(random() % 4096) - 2048) / 64;  // exact in half precision
  return vector;
}

shardpb::DocumentChange MakeChange(const std::string& id, const State& state, bool whole) {
  shardpb::DocumentChange change;
  pb::Document document = MakeDocument(id, state);
  change.set_content_hash(ContentHash(document));
  change.set_text_hash(TextHash(document.text()));
  if (whole) {
    const std::string& text = document.text();
    for (size_t end = 0; end < text.size();) {
      end = std::min(text.size(), end + kChunkBytes);
      while (end < text.size() && IsUtf8Continuation(text[end])) ++end;
      shardpb::ChunkContent& chunk = *change.add_chunks();
      chunk.set_end(end);
      chunk.add_token_ids(static_cast<int>(end));
      chunk.set_vector_fp16(ToHalf(MakeVector(id, state, change.chunks_size() - 1)));
    }
  } else {
    document.clear_text();
  }
  *change.mutable_document() = std::move(document);
  return change;
}

LocalShardOptions Options(const std::string& path) {
  LocalShardOptions options;
  options.store.path = path;
  options.store.log_changes_max = 60;            // so that the log is trimmed
  options.store.memory_bytes = size_t{3} << 20;  // so that tables are written and merged
  options.index.seal_rows = 256;                 // so that segments are sealed and merged all the time
  options.default_collection.emplace();
  options.default_collection->set_dimension(kDimension);
  options.default_collection->set_embedder_fingerprint("embedder");
  options.default_collection->set_tokenizer_fingerprint("tokenizer");
  return options;
}

// Brings a document to `next`, without sending its text if that is stored. False if the shard refused.
bool CarryOut(LocalShard& shard, const std::string& id, const State& next, bool text_is_stored) {
  if (!next.present) {
    shardpb::DeleteRequest request;
    request.set_collection(CollectionOf(id));
    request.add_document_ids(id);
    return shard.Delete(request, CallContext()).ok();
  }
  shardpb::WriteRequest request;
  request.set_collection(CollectionOf(id));
  *request.add_changes() = MakeChange(id, next, /*whole=*/!text_is_stored);
  const auto response = shard.Write(request, CallContext());
  return response.ok() && !response->results(0).has_error() &&
         response->results(0).outcome() != shardpb::CHANGE_OUTCOME_NEEDS_CHUNKS;
}

// Makes the named collection, or drops it.
bool CarryOut(LocalShard& shard, bool present) {
  if (!present) {
    shardpb::DropCollectionRequest request;
    request.set_name(kNamed);
    return shard.DropCollection(request, CallContext()).ok();
  }
  shardpb::CreateCollectionRequest request;
  *request.mutable_spec() = *Options("").default_collection;
  request.mutable_spec()->set_name(kNamed);
  return shard.CreateCollection(request, CallContext()).ok();
}

bool HasNamed(LocalShard& shard) { return shard.GetShardInfo({}, CallContext())->collections_size() > 1; }

// ---------------------------------------------------------------- the child

void ReportTo(int fd, const Report& report) {
  if (write(fd, &report, sizeof report) != sizeof report) _exit(3);
}

void WriteForever(LocalShard& shard, int writer, uint32_t seed, uint32_t first_version) {
  std::mt19937 random(seed + writer);
  std::map<int, State> known;
  bool has_collection = writer != kNamedWriter || HasNamed(shard);
  for (uint32_t version = first_version;; ++version) {
    if (!has_collection || (writer == kNamedWriter && random() % kChangesADrop == 0)) {
      has_collection = !has_collection;
      ReportTo(kAcknowledgementFd, {false, writer, kTheCollection, {has_collection}});
      if (!CarryOut(shard, has_collection)) _exit(10);
      ReportTo(kAcknowledgementFd, {true, writer, kTheCollection, {has_collection}});
      known.clear();
      continue;
    }
    const int document = static_cast<int>(random() % kDocumentsEach);
    State next = known[document];
    const uint32_t kind = random() % 8;
    const bool title_alone = next.present && kind < 2;
    if (title_alone) {
      next.title_version = version;
    } else if (next.present && kind == 2) {
      next = State();
    } else {
      next = {true, version, version};
    }
    ReportTo(kAcknowledgementFd, {false, writer, document, next});
    if (!CarryOut(shard, DocumentId(writer, document), next, title_alone)) _exit(4);
    ReportTo(kAcknowledgementFd, {true, writer, document, next});
    known[document] = next;
  }
}

std::string SnapshotsOf(const std::string& path) { return path + "-snapshots"; }

// One after the other, of which the last two stay.
void SnapshotForever(const LocalShard& shard, const std::string& folder) {
  const Snapshots snapshots(folder);
  for (;;) {
    const auto name = snapshots.NewName(shard);
    if (!name.ok() || !snapshots.Create(*name, shard, 0, kSlotCount - 1, [] { return absl::OkStatus(); }).ok())
      _exit(7);
    const auto all = snapshots.List();
    if (!all.ok()) _exit(8);
    for (size_t i = 2; i < all->size(); ++i) {
      if (!snapshots.Delete((*all)[i].name()).ok()) _exit(9);
    }
  }
}

int RunChild(const std::string& path, uint32_t seed, uint32_t first_version) {
  spdlog::set_level(spdlog::level::err);
  auto shard = LocalShard::Open(Options(path));
  if (!shard.ok()) {
    fprintf(stderr, "child: %s\n", shard.status().ToString().c_str());
    return 5;
  }
  std::vector<std::thread> writers;
  writers.reserve(kWriters + 2);
  for (int w = 0; w <= kNamedWriter; ++w) {
    writers.emplace_back([&, w] { WriteForever(**shard, w, seed, first_version); });
  }
  if (seed % kRoundsASnapshot == 0) {  // each moves the log into tables, which is not what most rounds are about
    writers.emplace_back([&] { SnapshotForever(**shard, SnapshotsOf(path)); });
  }
  for (std::thread& writer : writers) writer.join();
  return 0;
}

// ---------------------------------------------------------------- the parent

uint32_t FromEnvironment(const char* name, uint32_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<uint32_t>(std::strtoul(text, nullptr, 10));
}

struct Expected {
  State acknowledged;
  std::optional<State> under_way;  // begun and not acknowledged when the process died
};

class CrashTest : public testing::Test {
 protected:
  CrashTest() : path_(testing::TempDir() + "crash_test") { RemoveAll(); }
  ~CrashTest() override { RemoveAll(); }

  void RemoveAll() {
    std::filesystem::remove_all(path_);
    std::filesystem::remove_all(SnapshotsOf(path_));
  }

  // Runs a child for so long, and longer in a build that is slow; what it reported goes into `expected_`.
  void RunAndKill(uint32_t seed, uint32_t first_version, std::chrono::microseconds after) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const std::string seed_text = StrCat(seed), version_text = StrCat(first_version);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      dup2(ends[1], kAcknowledgementFd);
      execl("/proc/self/exe", "crash_test", "--child", path_.c_str(), seed_text.c_str(), version_text.c_str(), nullptr);
      _exit(6);
    }
    close(ends[1]);
    std::thread killer([&] {
      std::this_thread::sleep_for(after * time_factor_);
      kill(child, SIGKILL);
    });
    Report report;
    while (read(ends[0], &report, sizeof report) == sizeof report) {
      const bool of_collection = report.document == kTheCollection;
      if (of_collection && report.acknowledged) ForgetNamed();
      Expected& expected = of_collection ? named_ : expected_[DocumentId(report.writer, report.document)];
      if (report.acknowledged) {
        expected = {report.state, std::nullopt};
        ++acknowledged_;
      } else {
        expected.under_way = report.state;
      }
    }
    killer.join();
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child failed by itself: " << status;
  }

  // The state that the shard shows, checked to be whole.
  State Observe(LocalShard& shard, const std::string& id, const Expected& expected) {
    shardpb::GetDocumentRequest request;
    request.set_collection(CollectionOf(id));
    request.set_document_id(id);
    const auto response = shard.GetDocument(request, CallContext());
    if (!response.ok()) {
      EXPECT_EQ(response.status().code(), absl::StatusCode::kNotFound) << response.status();
      return State();
    }
    for (const State& state : {expected.acknowledged, expected.under_way.value_or(State())}) {
      if (!state.present) continue;
      pb::Document wanted = MakeDocument(id, state);
      if (response->document().title() != wanted.title()) continue;
      EXPECT_EQ(response->document().text(), wanted.text());
      EXPECT_EQ(response->info().content_hash(), ContentHash(wanted));
      EXPECT_EQ(response->document().metadata().at("version").values(0).int_value(), state.title_version);
      CheckChunks(shard, id, state, static_cast<int>(response->info().chunk_count()));
      return state;
    }
    ADD_FAILURE() << id << " is in a state that nobody wrote: " << response->document().title();
    return State();
  }

  void CheckChunks(LocalShard& shard, const std::string& id, const State& state, int chunk_count) {
    const shardpb::DocumentChange wanted = MakeChange(id, state, /*whole=*/true);
    ASSERT_EQ(chunk_count, wanted.chunks_size());
    shardpb::GetChunksRequest request;
    request.set_collection(CollectionOf(id));
    request.set_document_id(id);
    request.set_max_chunks(1024);
    request.set_include_vectors(true);
    const auto response = shard.GetChunks(request, CallContext());
    ASSERT_TRUE(response.ok()) << response.status();
    shardpb::SearchRequest search;
    search.set_collection(CollectionOf(id));
    search.set_k(1);
    search.mutable_effort()->set_level(1);  // through the lists of sealed segments
    for (int i = 0; i < chunk_count; ++i) {
      const auto& values = response->vectors(i).values();
      const std::vector<float> vector = MakeVector(id, state, i);
      EXPECT_EQ(std::vector<float>(values.begin(), values.end()), vector);
      EXPECT_EQ(response->chunks(i).token_ids(0), static_cast<int>(wanted.chunks(i).end()));
      search.add_queries()->mutable_vector()->mutable_values()->Add(vector.begin(), vector.end());
    }
    const auto found = shard.Search(search, CallContext());
    ASSERT_TRUE(found.ok()) << found.status();
    for (int i = 0; i < chunk_count; ++i) {
      ASSERT_EQ(found->results(i).neighbours_size(), 1);
      EXPECT_EQ(found->results(i).neighbours(0).distance(), 0);
      EXPECT_EQ(found->results(i).neighbours(0).document_id(), id);
      EXPECT_EQ(static_cast<int>(found->results(i).neighbours(0).chunk().chunk_number()), i);
    }
  }

  // Its documents are gone, or were never there.
  void ForgetNamed() {
    std::erase_if(expected_, [](const auto& entry) { return IsInNamed(entry.first); });
  }

  // It is there with all its documents, or not at all. Before these are looked at.
  void CheckNamed(LocalShard& shard) {
    const bool there = HasNamed(shard);
    EXPECT_TRUE(State{there} == named_.acknowledged || State{there} == named_.under_way) << there;
    if (!there) ForgetNamed();
    std::error_code none_yet;
    const std::filesystem::directory_iterator indexes(path_ + "/index", none_yet);
    EXPECT_LE(std::distance(begin(indexes), end(indexes)), there ? 2 : 1) << "an index of one that is gone";
  }
  void RepeatOfNamed(LocalShard& shard) {
    if (!named_.under_way.has_value()) return;
    interrupted_ += 1;
    ++collections_interrupted_;
    EXPECT_TRUE(CarryOut(shard, named_.under_way->present));
    if (!named_.under_way->present) ForgetNamed();
    named_ = {*named_.under_way, std::nullopt};
    EXPECT_EQ(HasNamed(shard), named_.acknowledged.present);
  }

  // Reopens, checks all documents, repeats what was under way, and checks that everything is there once.
  void CheckAll() {
    auto shard = LocalShard::Open(Options(path_));
    ASSERT_TRUE(shard.ok()) << shard.status();
    CheckNamed(**shard);
    std::map<std::string, std::pair<uint64_t, uint64_t>> counts = {
        {"", {0, 0}}};  // documents and chunks, by collection
    for (auto& [id, expected] : expected_) {
      const State state = Observe(**shard, id, expected);
      EXPECT_TRUE(state == expected.acknowledged || state == expected.under_way) << id;
      if (expected.under_way.has_value()) {
        interrupted_ += 1;
        EXPECT_TRUE(CarryOut(**shard, id, *expected.under_way, /*text_is_stored=*/false));
        expected = {*expected.under_way, std::nullopt};
        EXPECT_EQ(Observe(**shard, id, expected), expected.acknowledged) << id;
      }
      auto& [documents, chunks] = counts[CollectionOf(id)];
      documents += expected.acknowledged.present;
      if (expected.acknowledged.present) chunks += MakeChange(id, expected.acknowledged, true).chunks_size();
    }
    const auto stats = (*shard)->Stats({}, CallContext());
    ASSERT_TRUE(stats.ok());
    for (const auto& collection : stats->stats().collections()) {
      const std::pair<uint64_t, uint64_t> found = {collection.documents(), collection.chunks()};
      EXPECT_EQ(found, counts[collection.collection()]) << collection.collection();
    }
    RepeatOfNamed(**shard);
    with_segments_ += stats->stats().collections(0).segments_size() > 1;
  }

  // A snapshot that is listed is whole, whenever the process died that made it.
  void CheckSnapshots() {
    const Snapshots snapshots(SnapshotsOf(path_));
    const auto all = snapshots.List();
    ASSERT_TRUE(all.ok()) << all.status();
    for (const auto& snapshot : *all) {
      const auto store = Store::OpenSnapshot(snapshots.PathOf(snapshot.name()));
      ASSERT_TRUE(store.ok()) << store.status();
      const auto digest = (*store)->ComputeDigest(CallContext());
      ASSERT_TRUE(digest.ok()) << digest.status();
      EXPECT_GE(digest->position.number(), snapshot.position());  // the copy is made after it is looked at
      ++snapshots_;
    }
    std::filesystem::remove_all(SnapshotsOf(path_));
  }

  const std::string path_;
  const uint32_t time_factor_ = FromEnvironment("RETRO_TIME_FACTOR", 1);
  std::map<std::string, Expected> expected_;
  Expected named_;  // the collection itself
  uint64_t acknowledged_ = 0;
  uint64_t collections_interrupted_ = 0;
  uint64_t interrupted_ = 0;
  uint64_t with_segments_ = 0;  // rounds that found sealed segments
  uint64_t snapshots_ = 0;
};

TEST_F(CrashTest, NothingAcknowledgedIsLostAndNothingIsHalfThere) {
  spdlog::set_level(spdlog::level::err);
  const uint32_t seed = FromEnvironment("RETRO_CRASH_SEED", kSeedDefault);
  const uint32_t rounds = FromEnvironment("RETRO_CRASH_ROUNDS", kRoundsDefault);
  std::printf("seed %u, %u rounds\n", seed, rounds);
  std::mt19937 random(seed);
  constexpr uint32_t kVersionsARound = 1'000'000;
  // Where writing is slow, few changes of a collection are cut: it goes on until there is one.
  const auto goes_on = [&](uint32_t round) {
    return round < rounds || (collections_interrupted_ == 0 && round < 3 * rounds);
  };
  for (uint32_t round = 0; goes_on(round) && !HasFailure(); ++round) {
    SCOPED_TRACE(StrCat("round ", round));
    // Mostly while it writes, sometimes while it opens the store.
    const uint32_t milliseconds = random() % 4 == 0 ? random() % 60 : 60 + random() % 240;
    RunAndKill(random(), (round + 1) * kVersionsARound, std::chrono::milliseconds(milliseconds));
    CheckAll();
    CheckSnapshots();
  }
  std::printf("%lu changes acknowledged, %lu interrupted, of these %lu of the collection, ", acknowledged_,
              interrupted_, collections_interrupted_);
  std::printf("%lu rounds with sealed segments, %lu snapshots\n", with_segments_, snapshots_);
  EXPECT_GT(acknowledged_, rounds) << "the child hardly wrote";
  EXPECT_GT(interrupted_, 0u);
  EXPECT_GT(collections_interrupted_, 0u);
  EXPECT_GT(with_segments_, 0u);
  EXPECT_GT(snapshots_, 0u);
}

// A folder left by a process that died while it made the store is no obstacle.
TEST_F(CrashTest, AStoreHalfMadeIsMadeAgain) {
  spdlog::set_level(spdlog::level::err);
  constexpr uint32_t kRounds = 20;
  std::mt19937 random(kSeedDefault);
  for (uint32_t round = 0; round < kRounds && !HasFailure(); ++round) {
    SCOPED_TRACE(StrCat("seed ", kSeedDefault, " round ", round));
    RemoveAll();
    expected_.clear();
    named_ = {};
    RunAndKill(random(), 1, std::chrono::microseconds(random() % 60'000));
    CheckAll();
  }
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc == 5 && std::string(argv[1]) == "--child") {
    return retro::RunChild(argv[2], std::strtoul(argv[3], nullptr, 10), std::strtoul(argv[4], nullptr, 10));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
