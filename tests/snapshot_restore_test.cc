// Snapshots of some shards, restored onto the same and onto other numbers of shards.
#include "retriever_service/ingest/snapshot_restore.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/file_lock.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "common/document/snapshot_name.h"
#include "retriever_service/shard/local_admin.h"
#include "retriever_service/shard/local_shard.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr uint32_t kDimension = 4;
constexpr uint32_t kSeed = 4711;
constexpr int kQueries = 1000;

// Some shards of one store in this process, as a router has them.
class SomeShards {
 public:
  SomeShards(const std::string& folder, uint32_t count, const std::string& embedder = "embedder") {
    std::vector<std::unique_ptr<Shard>> shards;
    for (uint32_t i = 0; i < count; ++i) {
      LocalShardOptions options;
      options.store.path = StrCat(folder, "/", i);
      options.store.cluster = "c";
      options.store.store_id = "0123456789abcdef";
      options.store.shard = i;
      options.store.shard_count = count;
      options.default_collection.emplace().set_dimension(kDimension);
      options.default_collection->set_embedder_fingerprint(embedder);
      auto shard = LocalShard::Open(options);
      EXPECT_TRUE(shard.ok()) << shard.status();
      locals_.push_back(shard->get());
      shards.push_back(*std::move(shard));
    }
    auto map = ShardMap::Create(std::move(shards));
    EXPECT_TRUE(map.ok()) << map.status();
    map_ = *std::move(map);
  }

  ShardMap& map() { return *map_; }
  LocalShard& local(uint32_t i) { return *locals_[i]; }
  uint32_t FirstSlot(uint32_t i) const {
    const auto count = static_cast<uint32_t>(locals_.size());
    return (kSlotCount * i + count - 1) / count;
  }

  void CreateCollection(const std::string& name) {
    shardpb::CreateCollectionRequest request;
    *request.mutable_spec() = *map_->Collection("");
    request.mutable_spec()->set_name(name);
    for (LocalShard* shard : locals_) ASSERT_TRUE(shard->CreateCollection(request, CallContext()).ok());
  }
  uint64_t Documents(const std::string& collection) {
    uint64_t documents = 0;
    for (LocalShard* shard : locals_) {
      const auto stats = shard->Stats({}, CallContext())->stats();
      for (const auto& one : stats.collections()) documents += one.collection() == collection ? one.documents() : 0;
    }
    return documents;
  }

  void Write(const std::string& id, const std::string& text, std::optional<uint64_t> version = std::nullopt,
             const std::string& collection = "") {
    std::mt19937 random(static_cast<uint32_t>(std::hash<std::string>()(text)));
    shardpb::WriteRequest request;
    request.set_collection(collection);
    shardpb::DocumentChange& change = *request.add_changes();
    change.mutable_document()->set_id(id);
    change.mutable_document()->set_title("title of " + text);
    change.mutable_document()->set_text(text);
    if (version.has_value()) change.mutable_document()->set_external_version(*version);
    change.set_content_hash(ContentHash(change.document()));
    change.set_text_hash(TextHash(text));
    for (size_t end = 0; end < text.size();) {
      end = std::min(text.size(), end + 5);
      change.add_chunks()->set_end(end);
      change.mutable_chunks(change.chunks_size() - 1)->add_token_ids(static_cast<int>(end));
      std::vector<float> vector(kDimension);
      for (float& x : vector) x = static_cast<float>(random() % 512) / 16;
      change.mutable_chunks(change.chunks_size() - 1)->set_vector_fp16(ToHalf(vector));
    }
    const auto response = map_->shard(map_->ShardOfDocument(id)).Write(request, CallContext());
    ASSERT_TRUE(response.ok()) << response.status();
    ASSERT_FALSE(response->results(0).has_error()) << response->results(0).error().message();
  }
  void Delete(const std::string& id) {
    shardpb::DeleteRequest request;
    request.add_document_ids(id);
    ASSERT_TRUE(map_->shard(map_->ShardOfDocument(id)).Delete(request, CallContext()).ok());
  }

  // What many searches find, all shards together: distance, document, chunk, its text and its continuation's.
  std::vector<std::string> Answers() {
    std::mt19937 random(kSeed);
    std::vector<std::string> answers;
    for (int q = 0; q < kQueries; ++q) {
      shardpb::SearchRequest request;
      request.set_k(5);
      for (uint32_t d = 0; d < kDimension; ++d) {
        if (request.queries().empty()) request.add_queries();
        request.mutable_queries(0)->mutable_vector()->add_values(static_cast<float>(random() % 512) / 16);
      }
      std::vector<std::pair<float, std::string>> found;
      for (LocalShard* shard : locals_) {
        const auto response = shard->Search(request, CallContext());
        EXPECT_TRUE(response.ok()) << response.status();
        for (const pb::Neighbour& n : response->results(0).neighbours()) {
          found.emplace_back(n.distance(),
                             StrCat(n.document_id(), "#", n.chunk().chunk_number(), " ", n.title(), " ",
                                    n.chunk().text(), "|", n.continuation().text(), " ", n.chunk().token_ids(0)));
        }
      }
      std::sort(found.begin(), found.end());
      for (size_t i = 0; i < 5 && i < found.size(); ++i)
        answers.push_back(StrCat(found[i].first, " ", found[i].second));
    }
    return answers;
  }

 private:
  std::vector<LocalShard*> locals_;
  std::unique_ptr<ShardMap> map_;
};

class SnapshotRestoreTest : public testing::Test {
 protected:
  SnapshotRestoreTest() : from_(folder_ / "from", 3), snapshots_(folder_ / "snapshots") {
    spdlog::set_level(spdlog::level::off);
    for (int i = 0; i < 100; ++i) from_.Write(StrCat("d", i), StrCat("text number ", i, " of those"), 5);
    for (int i = 0; i < 100; i += 7) from_.Delete(StrCat("d", i));
  }

  std::vector<std::string> Take() {
    std::vector<std::string> names;
    for (uint32_t i = 0; i < 3; ++i) {
      names.push_back(*snapshots_.NewName(from_.local(i)));
      const absl::Status status = snapshots_.Create(names.back(), from_.local(i), from_.FirstSlot(i),
                                                    from_.FirstSlot(i + 1) - 1, [] { return absl::OkStatus(); });
      EXPECT_TRUE(status.ok()) << status;
    }
    return names;
  }

  absl::Status RestoreAll(const std::vector<std::string>& names, SomeShards& to) {
    for (const std::string& name : names) {
      float last = 0;
      const absl::Status status =
          RestoreSnapshot(snapshots_.PathOf(name), *snapshots_.Find(name), to.map(), [&](float progress) {
            EXPECT_GE(progress, last);
            last = progress;
            return absl::OkStatus();
          });
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  TemporaryFolder folder_;
  SomeShards from_;
  Snapshots snapshots_;
};

TEST_F(SnapshotRestoreTest, OntoTheSameShards) {
  const std::vector<std::string> before = from_.Answers();
  const std::vector<std::string> names = Take();
  // Everything that can happen afterwards: changed under a newer version, deleted, new.
  for (int i = 0; i < 100; i += 5) from_.Write(StrCat("d", i), "something else", 6);
  for (int i = 1; i < 100; i += 11) from_.Delete(StrCat("d", i));
  for (int i = 0; i < 20; ++i) from_.Write(StrCat("new", i), "more of it");
  EXPECT_NE(from_.Answers(), before);
  ASSERT_TRUE(RestoreAll(names, from_).ok());
  EXPECT_EQ(from_.Answers(), before);
  ASSERT_TRUE(RestoreAll(names, from_).ok()) << "again, with nothing to do";
  EXPECT_EQ(from_.Answers(), before);
}

TEST_F(SnapshotRestoreTest, ANewerVersionIsReplacedByOneChange) {
  from_.Write("none", "it has no version", std::nullopt);
  const std::vector<std::string> names = Take();
  from_.Write("d1", "something else", 9);
  from_.Write("d2", "text number 2 of those", 9);  // the version alone
  from_.Write("none", "it has no version", 9);
  const auto changes = [&] {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 3; ++i) sum += from_.local(i).position().number();
    return sum;
  };
  const uint64_t before = changes();
  ASSERT_TRUE(RestoreAll(names, from_).ok());
  EXPECT_EQ(changes(), before + 3);
  const auto document = [&](const std::string& id) {
    shardpb::GetDocumentRequest request;
    request.set_document_id(id);
    return from_.map().shard(from_.map().ShardOfDocument(id)).GetDocument(request, CallContext())->document();
  };
  EXPECT_EQ(document("d1").external_version(), 5u);
  EXPECT_EQ(document("d1").text(), "text number 1 of those");
  EXPECT_EQ(document("d2").external_version(), 5u);
  EXPECT_FALSE(document("none").has_external_version());
}

TEST_F(SnapshotRestoreTest, EndsWhileItDeletes) {
  const std::vector<std::string> names = Take();
  const auto documents = [&](uint32_t i) { return from_.local(i).Stats({}, {})->stats().collections(0).documents(); };
  for (int i = 0; i < 30; ++i) from_.Write(StrCat("new", i), "more of it");
  const uint64_t others = documents(1) + documents(2);
  // As if the snapshot were of all slots: what it lacks of the other shards' is to be deleted, too.
  admin::v1::Snapshot snapshot = *snapshots_.Find(names[0]);
  snapshot.set_first_slot(0);
  snapshot.set_last_slot(kSlotCount - 1);
  int told = 0;
  const absl::Status status = RestoreSnapshot(snapshots_.PathOf(names[0]), snapshot, from_.map(), [&](float progress) {
    ++told;
    return progress == 0 ? absl::OkStatus() : absl::CancelledError("the server is stopping");
  });
  EXPECT_EQ(status.message(), "the server is stopping");
  EXPECT_GT(told, 0);
  EXPECT_EQ(documents(1) + documents(2), others);
}

// A shard that does nothing until its caller has left.
class WaitingShard final : public Shard {
 public:
  explicit WaitingShard(std::unique_ptr<Shard> shard) : shard_(std::move(shard)) {}

#define RETRO_PASS_ON(Method)                                                               \
  absl::StatusOr<shardpb::Method##Response> Method(const shardpb::Method##Request& request, \
                                                   const CallContext& context) override {   \
    return shard_->Method(request, context);                                                \
  }
  RETRO_PASS_ON(Search)
  RETRO_PASS_ON(Delete)
  RETRO_PASS_ON(CreateCollection)
  RETRO_PASS_ON(DropCollection)
  RETRO_PASS_ON(GetDocument)
  RETRO_PASS_ON(GetChunks)
  RETRO_PASS_ON(ListDocuments)
  RETRO_PASS_ON(Stats)
  RETRO_PASS_ON(GetShardInfo)
#undef RETRO_PASS_ON
  absl::StatusOr<shardpb::WriteResponse> Write(const shardpb::WriteRequest&, const CallContext& context) override {
    while (context.Check().ok()) std::this_thread::yield();
    return context.Check();
  }

 private:
  const std::unique_ptr<Shard> shard_;
};

TEST_F(SnapshotRestoreTest, EndsWhileAShardDoesNotAnswer) {
  const std::vector<std::string> names = Take();
  LocalShardOptions options;
  options.store.path = folder_ / "waiting";
  options.default_collection.emplace().set_dimension(kDimension);
  options.default_collection->set_embedder_fingerprint("embedder");
  std::vector<std::unique_ptr<Shard>> shards;
  shards.push_back(std::make_unique<WaitingShard>(*LocalShard::Open(options)));
  const auto map = *ShardMap::Create(std::move(shards));
  int told = 0;
  const absl::Status status = RestoreSnapshot(
      snapshots_.PathOf(names[0]), *snapshots_.Find(names[0]), *map,
      [&](float) { return ++told < 100 ? absl::OkStatus() : absl::CancelledError("the server is stopping"); });
  EXPECT_EQ(status.message(), "the server is stopping");
}

TEST_F(SnapshotRestoreTest, OntoOtherNumbersOfShards) {
  const std::vector<std::string> before = from_.Answers();
  const std::vector<std::string> names = Take();
  for (const uint32_t count : {1U, 2U, 5U}) {
    SomeShards to(folder_ / StrCat("to", count), count);
    to.Write("stranger", "this is not in the snapshots");
    ASSERT_TRUE(RestoreAll(names, to).ok());
    EXPECT_EQ(to.Answers(), before) << count;
  }
}

TEST_F(SnapshotRestoreTest, OfOneShardLeavesTheOthersSlotsAlone) {
  const std::vector<std::string> names = Take();
  for (int i = 0; i < 30; ++i) from_.Write(StrCat("new", i), "more of it");
  const auto documents = [&](uint32_t i) { return from_.local(i).Stats({}, {})->stats().collections(0).documents(); };
  const uint64_t others = documents(0) + documents(2);
  const uint64_t own = documents(1);
  ASSERT_TRUE(RestoreAll({names[1]}, from_).ok());
  EXPECT_EQ(documents(0) + documents(2), others);
  EXPECT_LT(documents(1), own);
}

TEST_F(SnapshotRestoreTest, CollectionsThatAreNotThereAreMadeAndOthersStay) {
  from_.CreateCollection("named");
  from_.Write("n", "a text of the named one", std::nullopt, "named");
  const std::vector<std::string> names = Take();
  SomeShards to(folder_ / "to", 2);
  to.CreateCollection("since");
  to.Write("s", "made since", std::nullopt, "since");
  ASSERT_TRUE(RestoreAll(names, to).ok());
  EXPECT_EQ(to.Documents("named"), 1u);
  EXPECT_EQ(to.Documents("since"), 1u);
  EXPECT_EQ(to.Answers(), from_.Answers());
}

TEST_F(SnapshotRestoreTest, ACollectionThatSomeShardsAloneHaveIsMadeOnTheOthers) {
  from_.CreateCollection("named");
  for (int i = 0; i < 10; ++i) from_.Write(StrCat("n", i), "a text of the named one", std::nullopt, "named");
  const std::vector<std::string> names = Take();
  SomeShards to(folder_ / "to", 2);
  shardpb::CreateCollectionRequest request;
  *request.mutable_spec() = *to.map().Collection("");
  request.mutable_spec()->set_name("named");
  ASSERT_TRUE(to.local(0).CreateCollection(request, CallContext()).ok());
  ASSERT_TRUE(RestoreAll(names, to).ok());
  EXPECT_EQ(to.Documents("named"), 10u);
}

TEST_F(SnapshotRestoreTest, AnotherEmbeddersStoreIsLeftAlone) {
  const std::vector<std::string> names = Take();
  SomeShards to(folder_ / "to", 1, "another embedder");
  to.Write("stranger", "this is not in the snapshots");
  EXPECT_EQ(ReasonOf(RestoreAll(names, to)), Reason::kEmbedderMismatch);
  EXPECT_EQ(to.local(0).Stats({}, {})->stats().collections(0).documents(), 1u);
}

TEST_F(SnapshotRestoreTest, AreListedAndDeletedByNameAlone) {
  EXPECT_TRUE(snapshots_.List()->empty());
  const std::vector<std::string> names = Take();
  const auto list = snapshots_.List();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 3u);
  for (const auto& snapshot : *list) {
    EXPECT_THAT(names, testing::Contains(snapshot.name()));
    EXPECT_GT(snapshot.size_bytes(), 0u);
    EXPECT_GT(snapshot.position(), 15u);
  }
  for (const char* name : {"", ".", "..", "../from", "none", "a/b"}) {
    EXPECT_EQ(ReasonOf(snapshots_.Delete(name)), Reason::kNotFound) << name;
  }
  ASSERT_TRUE(snapshots_.Delete(names[0]).ok());
  EXPECT_EQ(snapshots_.List()->size(), 2u);
  EXPECT_EQ(ReasonOf(Snapshots("").List().status()), Reason::kNotSupported);
}

TEST_F(SnapshotRestoreTest, TheNewestOfAShardIsFoundByItsName) {
  const std::string store_id = from_.map().store_id();
  const auto newest = [&](uint32_t shard) {
    return Snapshots(folder_ / "snapshots").NewestUnixSeconds(store_id, shard);  // as after a start
  };
  EXPECT_EQ(newest(0), std::nullopt) << "there is no folder";
  const std::vector<std::string> names = Take();
  const auto made_at = [&](const std::string& name) { return snapshots_.Find(name)->create_time().seconds(); };
  EXPECT_EQ(newest(1), made_at(names[1]));
  EXPECT_EQ(newest(3), std::nullopt);
  EXPECT_EQ(snapshots_.NewestUnixSeconds("another store", 1), std::nullopt);
  EXPECT_EQ(Snapshots("").NewestUnixSeconds(store_id, 1), std::nullopt);

  // What is not complete is none, though its name is that of a newer one.
  admin::v1::Snapshot manifest = *snapshots_.Find(names[1]);
  manifest.mutable_create_time()->set_seconds(made_at(names[1]) + 1);
  const std::string whole = folder_ / "manifest";
  ASSERT_TRUE(WriteFileAtomically(whole, WithChecksum(manifest.SerializeAsString())).ok());
  const std::string later = snapshots_.PathOf(SnapshotNamePrefix(store_id, 1) + "99990101-000000-9.9-9");
  std::filesystem::create_directory(later);
  EXPECT_EQ(newest(1), made_at(names[1])) << "without a manifest";
  std::filesystem::create_symlink(whole, later + "/snapshot");
  EXPECT_EQ(newest(1), made_at(names[1])) << "links are not followed";
  std::filesystem::remove(later + "/snapshot");
  ASSERT_TRUE(WriteFileAtomically(later + "/snapshot", "damaged").ok());
  EXPECT_EQ(newest(1), made_at(names[1])) << "with a damaged manifest";
  std::filesystem::rename(whole, later + "/snapshot");
  EXPECT_EQ(newest(1), made_at(names[1]) + 1);
  std::filesystem::remove_all(later);
  ASSERT_TRUE(snapshots_.Delete(names[1]).ok());
  EXPECT_EQ(newest(1), std::nullopt);
}

// Its slots decide what a restore deletes.
TEST_F(SnapshotRestoreTest, ADamagedManifestIsNotRestoredAndCanBeDeleted) {
  const std::vector<std::string> names = Take();
  const std::string path = snapshots_.PathOf(names[0]) + "/snapshot";
  const std::string whole = *ReadFile(path);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    ASSERT_TRUE(WriteFileAtomically(path, damaged).ok());
    ASSERT_EQ(ReasonOf(snapshots_.Find(names[0]).status()), Reason::kStoreDamaged) << "byte " << at;
  }
  EXPECT_EQ(snapshots_.List()->size(), 2u);
  EXPECT_TRUE(snapshots_.Delete(names[0]).ok());
}

// Whoever can write the folder that all shards share must not have them read or delete something else.
TEST_F(SnapshotRestoreTest, LinksAreNotFollowed) {
  const std::vector<std::string> names = Take();
  const std::string elsewhere = folder_ / "elsewhere";
  std::filesystem::rename(snapshots_.PathOf(names[0]), elsewhere);
  std::filesystem::create_directory_symlink(elsewhere, snapshots_.PathOf(names[0]));
  EXPECT_EQ(ReasonOf(snapshots_.Find(names[0]).status()), Reason::kNotFound);
  EXPECT_EQ(ReasonOf(snapshots_.Delete(names[0])), Reason::kNotFound);
  for (const char* inner : {"/snapshot", "/rocksdb/CURRENT"}) {
    const std::string file = snapshots_.PathOf(names[1]) + inner;
    std::filesystem::rename(file, folder_ / "file");
    std::filesystem::create_symlink(folder_ / "file", file);
    EXPECT_EQ(ReasonOf(snapshots_.Find(names[1]).status()), Reason::kStoreDamaged) << inner;
    std::filesystem::rename(folder_ / "file", file);
  }
  EXPECT_TRUE(snapshots_.Find(names[1]).ok());
  std::filesystem::create_directory_symlink(elsewhere, snapshots_.PathOf(names[1]) + "/more");
  EXPECT_EQ(snapshots_.List()->size(), 1u);
  EXPECT_TRUE(snapshots_.Delete(names[1]).ok());
  EXPECT_TRUE(std::filesystem::exists(elsewhere + "/rocksdb/CURRENT"));
}

TEST_F(SnapshotRestoreTest, WhatAProcessThatDiedHasLeftIsRemovedByTheNextOne) {
  const std::string left = folder_ / "snapshots/.unfinished-left", made = folder_ / "snapshots/.unfinished-made";
  std::filesystem::create_directories(left + "/rocksdb");
  std::filesystem::create_directories(made + "/rocksdb");
  {
    const auto lock = FileLock::Take(made + ".lock");  // by another process, say
    ASSERT_TRUE(lock.ok()) << lock.status();
    Take();
    EXPECT_FALSE(std::filesystem::exists(left));
    EXPECT_TRUE(std::filesystem::exists(made + "/rocksdb"));
  }
  Take();
  const std::filesystem::directory_iterator all(folder_ / "snapshots");
  EXPECT_EQ(std::distance(begin(all), end(all)), 6) << "snapshots and nothing else";
}

TEST_F(SnapshotRestoreTest, AnOperationTellsHowItGoes) {
  LocalAdminOptions options;
  options.snapshot_dir = folder_ / "snapshots";
  options.open = [this] { return std::shared_ptr<LocalShard>(std::shared_ptr<void>(), &from_.local(0)); };
  LocalAdmin admin(options);
  const auto begun = admin.CreateSnapshot({}, CallContext());
  ASSERT_TRUE(begun.ok()) << begun.status();
  adminpb::GetOperationRequest request;
  request.set_operation_id(begun->operation().operation_id());
  adminpb::Operation operation = begun->operation();
  while (operation.state() == adminpb::OPERATION_STATE_RUNNING) {
    operation = admin.GetOperation(request, CallContext())->operation();
  }
  EXPECT_EQ(operation.state(), adminpb::OPERATION_STATE_SUCCEEDED) << operation.message();
  EXPECT_TRUE(snapshots_.Find(begun->name()).ok());
  request.set_operation_id("another");
  EXPECT_EQ(ReasonOf(admin.GetOperation(request, CallContext()).status()), Reason::kNotFound);
  adminpb::CreateSnapshotRequest elsewhere;
  elsewhere.set_shard(1);
  EXPECT_EQ(FieldOf(admin.CreateSnapshot(elsewhere, CallContext()).status()), "shard");
  EXPECT_EQ(admin.Verify({}, CallContext())->documents(),
            from_.local(0).Stats({}, {})->stats().collections(0).documents());
  adminpb::SetReadOnlyRequest read_only;
  read_only.set_read_only(true);
  ASSERT_TRUE(admin.SetReadOnly(read_only, CallContext()).ok());
  shardpb::DeleteRequest deletion;
  deletion.add_document_ids("d1");
  EXPECT_EQ(ReasonOf(from_.local(0).Delete(deletion, CallContext()).status()), Reason::kReadOnly);
}

}  // namespace
}  // namespace retro
