#include "retriever_service/store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "retriever_service/store/acknowledged_mark.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr int kDimension = 4;

class StoreTest : public testing::Test {
 protected:
  StoreTest() {
    options_.path = testing::TempDir() + "store_test_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(options_.path);
  }
  ~StoreTest() override { std::filesystem::remove_all(options_.path); }

  void Open() {
    store_.reset();
    auto store = Store::Open(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  void OpenWithCollection() {
    Open();
    Transaction transaction = store_->Begin();
    pb::CollectionSpec spec;
    spec.set_dimension(kDimension);
    transaction.CreateCollection(spec);
    ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
  }

  // A document cut into chunks of `chunk_bytes`; each chunk's vector tells its number and `seed`.
  static shardpb::DocumentChange MakeChange(const std::string& id, const std::string& text, size_t chunk_bytes,
                                            float seed) {
    shardpb::DocumentChange change;
    change.mutable_document()->set_id(id);
    change.mutable_document()->set_title("title of " + id);
    change.mutable_document()->set_text(text);
    (*change.mutable_document()->mutable_metadata())["year"].add_values()->set_int_value(1999);
    change.set_content_hash(ContentHash(change.document()));
    change.set_text_hash(TextHash(text));
    for (size_t begin = 0; begin < text.size(); begin += chunk_bytes) {
      shardpb::ChunkContent& chunk = *change.add_chunks();
      chunk.set_end(std::min(text.size(), begin + chunk_bytes));
      chunk.add_token_ids(static_cast<int>(begin));
      const std::vector<float> vector = {seed, static_cast<float>(change.chunks_size()), 0, 0};
      chunk.set_vector_fp16(ToHalf(vector));
    }
    return change;
  }

  shardpb::DocumentRecord Put(const shardpb::DocumentChange& change) {
    Transaction transaction = store_->Begin();
    const auto old = transaction.FindDocument(0, change.document().id());
    EXPECT_TRUE(old.ok());
    shardpb::DocumentRecord record = transaction.PutDocument(0, change, *old);
    EXPECT_TRUE(store_->Commit(std::move(transaction)).ok());
    return record;
  }

  std::string TextOf(const std::string& id) {
    const auto record = store_->ReadDocument(0, id, nullptr);
    if (!record.ok() || !record->has_value()) return "(missing)";
    const auto text = store_->ReadText(0, **record, nullptr);
    return text.ok() ? *text : text.status().ToString();
  }

  size_t RowsIn(const shardpb::DocumentRecord& record, uint32_t collection = 0) {
    std::vector<uint64_t> ids;
    ids.reserve(record.chunks().count());
    for (uint32_t i = 0; i < record.chunks().count(); ++i) {
      ids.push_back(ChunkIdAt(record.chunks().first_chunk_id(), i));
    }
    const auto rows = store_->ReadChunks(collection, ids, nullptr);
    EXPECT_TRUE(rows.ok());
    return std::count_if(rows->begin(), rows->end(), [](const auto& row) { return row.has_value(); });
  }

  absl::Status Reopen() { return Store::Open(options_).status(); }

  StoreOptions options_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, DocumentComesBackAfterReopen) {
  OpenWithCollection();
  const shardpb::DocumentRecord written = Put(MakeChange("a", "one two three", 5, 7));
  const std::string store_id = store_->identity().store_id;
  Open();
  EXPECT_EQ(store_->identity().store_id, store_id);
  EXPECT_EQ(store_id.size(), kStoreIdBytes);
  EXPECT_EQ(TextOf("a"), "one two three");
  const auto record = store_->ReadDocument(0, "a", nullptr);
  ASSERT_TRUE(record.ok() && record->has_value());
  EXPECT_EQ((*record)->SerializeAsString(), written.SerializeAsString());
  EXPECT_EQ((*record)->document().metadata().at("year").values(0).int_value(), 1999);
  EXPECT_EQ((*record)->chunks().count(), 3u);
  const uint64_t second = ChunkIdAt((*record)->chunks().first_chunk_id(), 1);
  const auto chunks = store_->ReadChunks(0, std::vector{second}, nullptr);
  ASSERT_TRUE(chunks.ok() && (*chunks)[0].has_value());
  EXPECT_EQ((*chunks)[0]->text(), "wo th");
  EXPECT_EQ((*chunks)[0]->begin(), 5u);
  EXPECT_THAT((*chunks)[0]->token_ids(), testing::ElementsAre(5));
  const auto vectors = store_->ReadVectors(0, std::vector{second}, nullptr);
  ASSERT_TRUE(vectors.ok());
  EXPECT_EQ((*vectors)[0], ToHalf(std::vector<float>{7, 2, 0, 0}));
}

TEST_F(StoreTest, PositionsAndChunkIdsCountOnAfterReopen) {
  OpenWithCollection();
  EXPECT_EQ(store_->last_position().epoch(), 1u);
  EXPECT_EQ(store_->last_position().number(), 1u);  // the collection
  const auto first = Put(MakeChange("a", "one two three", 5, 1));
  Open();
  const auto second = Put(MakeChange("b", "four", 5, 1));
  EXPECT_EQ(second.position().number(), 3u);
  EXPECT_EQ(second.chunks().first_chunk_id() >> kSlotBits, (first.chunks().first_chunk_id() >> kSlotBits) + 3);
  EXPECT_EQ(SlotOfChunk(second.chunks().first_chunk_id()), SlotOfDocument("b"));
}

TEST_F(StoreTest, TransactionSeesItsOwnChangesAndNobodyElseDoes) {
  OpenWithCollection();
  Transaction transaction = store_->Begin();
  transaction.PutDocument(0, MakeChange("a", "old", 5, 1), std::nullopt);
  const auto found = transaction.FindDocument(0, "a");
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ(TextOf("a"), "(missing)");
  transaction.RemoveDocument(0, **found);
  EXPECT_FALSE(transaction.FindDocument(0, "a")->has_value());
  ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
  EXPECT_EQ(TextOf("a"), "(missing)");
  EXPECT_EQ(store_->last_position().number(), 3u);
}

TEST_F(StoreTest, LogTellsWhatHappened) {
  OpenWithCollection();
  const auto first = Put(MakeChange("a", "old text", 5, 1));
  Put(MakeChange("a", "new", 5, 1));
  std::vector<shardpb::Change> changes;
  ASSERT_TRUE(store_
                  ->ScanLog(MakePosition(1, 0), nullptr,
                            [&](const shardpb::Change& change) -> absl::StatusOr<bool> {
                              changes.push_back(change);
                              return true;
                            })
                  .ok());
  ASSERT_EQ(changes.size(), 3u);
  EXPECT_TRUE(changes[0].has_create_collection());
  EXPECT_FALSE(changes[1].put().has_replaced());
  EXPECT_EQ(changes[2].put().replaced().first_chunk_id(), first.chunks().first_chunk_id());
  EXPECT_EQ(changes[2].put().record().document().id(), "a");
  EXPECT_TRUE(changes[2].put().record().document().text().empty());
}

TEST_F(StoreTest, MetadataChangeKeepsRows) {
  OpenWithCollection();
  shardpb::DocumentChange change = MakeChange("a", "one two", 5, 1);
  const auto first = Put(change);
  change.mutable_document()->set_title("another");
  change.mutable_document()->clear_text();
  change.clear_chunks();
  Transaction transaction = store_->Begin();
  const shardpb::DocumentRecord second = transaction.PutMetadata(0, change, first);
  ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
  EXPECT_EQ(second.chunks().first_chunk_id(), first.chunks().first_chunk_id());
  EXPECT_EQ(TextOf("a"), "one two");
}

TEST_F(StoreTest, FreedRowsGoWithTheLogThatHoldsThem) {
  options_.log_changes_max = 2;
  OpenWithCollection();
  const auto old = Put(MakeChange("a", "old text", 3, 1));
  Put(MakeChange("a", "new text", 3, 1));
  ASSERT_TRUE(store_->TrimLog().ok());
  EXPECT_EQ(RowsIn(old), 3u) << "the change that freed them is still in the log";
  Put(MakeChange("b", "other", 3, 1));
  Put(MakeChange("c", "other", 3, 1));
  ASSERT_TRUE(store_->TrimLog().ok());
  EXPECT_EQ(RowsIn(old), 0u);
  EXPECT_EQ(store_->log_start().number(), 4u);
  Open();
  EXPECT_EQ(store_->log_start().number(), 4u);
  EXPECT_EQ(TextOf("a"), "new text");
}

TEST_F(StoreTest, TrimmingFreesABoundedNumberOfRowsACall) {
  options_.log_changes_max = 1;
  OpenWithCollection();
  Put(MakeChange("small", "old", 3, 1));
  const uint64_t first = Put(MakeChange("a", std::string(40'000, 'a'), 1, 1)).position().number();
  for (const char version : {'b', 'c', 'd', 'e'}) Put(MakeChange("a", std::string(40'000, version), 1, 1));
  ASSERT_TRUE(store_->TrimLog().ok());
  EXPECT_EQ(store_->log_start().number(), first + 3) << "two replacements freed 80,000 rows: enough for one call";
  ASSERT_TRUE(store_->TrimLog().ok());
  EXPECT_EQ(store_->log_start().number(), store_->last_position().number());
}

TEST_F(StoreTest, TheLogIsEmptiedWhenAsked) {
  options_.log_changes_max = 1000;
  OpenWithCollection();
  const auto old = Put(MakeChange("a", std::string(70'000, 'a'), 1, 1));
  Put(MakeChange("a", std::string(70'000, 'b'), 1, 1));
  Put(MakeChange("a", "new text", 3, 1));
  Put(MakeChange("b", "other", 3, 1));
  ASSERT_TRUE(store_->TrimLog().ok());
  EXPECT_EQ(RowsIn(old), 70'000u);
  store_->KeepLog("a copy", store_->last_position(), Store::Clock::now() - std::chrono::seconds(1));
  int calls = 0;
  for (bool more = true; more; ++calls) more = *store_->TrimLogTo(1);
  EXPECT_GT(calls, 1) << "a bounded number of rows each";
  EXPECT_EQ(RowsIn(old), 0u);
  EXPECT_EQ(store_->log_start().number(), store_->last_position().number());
  Put(MakeChange("c", "text", 3, 1));
  Put(MakeChange("d", "text", 3, 1));
  store_->KeepLog("a copy", MakePosition(1, store_->last_position().number() - 1),
                  Store::Clock::now() + std::chrono::hours(1));
  EXPECT_FALSE(*store_->TrimLogTo(1));
  EXPECT_EQ(store_->log_start().number(), store_->last_position().number() - 1) << "kept for who copies the store";
  Open();
  EXPECT_EQ(TextOf("a"), "new text");
}

TEST_F(StoreTest, ADroppedCollectionsRowsGoWithTheLogThatHoldsThem) {
  OpenWithCollection();
  const shardpb::DocumentRecord kept = Put(MakeChange("a", "one two three", 5, 7));
  pb::CollectionSpec spec;
  spec.set_name("named");
  Transaction transaction = store_->Begin();
  const uint32_t named = transaction.CreateCollection(spec);
  const shardpb::DocumentRecord gone = transaction.PutDocument(named, MakeChange("a", "1 2", 1, 1), std::nullopt);
  transaction.PutDocument(named, MakeChange("b", "3", 1, 1), std::nullopt);
  ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
  auto before = store_->TakeSnapshot();
  transaction = store_->Begin();
  transaction.DropCollection({named, spec});
  ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
  EXPECT_TRUE(store_->ReadDocument(named, "b", before.get())->has_value());
  before.reset();
  for (const bool reopened : {false, true}) {
    if (reopened) Open();
    EXPECT_EQ(store_->Collections().size(), 1u);
    EXPECT_FALSE(store_->ReadDocument(named, "a", nullptr)->has_value());
    EXPECT_EQ(TextOf("a"), "one two three");
    EXPECT_EQ(RowsIn(gone, named), 3u) << "the log still tells of them";
  }
  EXPECT_EQ(store_->ComputeDigest(CallContext())->documents, 1u);
  transaction = store_->Begin();
  const uint32_t again = transaction.CreateCollection(spec);
  EXPECT_GT(again, named) << "numbers are never used again";
  transaction.PutDocument(again, MakeChange("a", "4 5", 1, 1), std::nullopt);
  ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
  ASSERT_TRUE(store_->TrimLogTo(2).ok());  // the drop, too
  EXPECT_EQ(RowsIn(gone, named), 0u);
  EXPECT_EQ(RowsIn(kept, 0), 3u);
  EXPECT_EQ(store_->ComputeDigest(CallContext())->chunks, 6u);
  ASSERT_TRUE(store_->Compact().ok());
  Open();
  EXPECT_EQ(RowsIn(gone, named), 0u);
  EXPECT_EQ(store_->ComputeDigest(CallContext())->chunks, 6u);
}

// One that is far behind gets every change as it was, those of a collection that is gone, too.
TEST_F(StoreTest, TheLogOverADropMakesAnEqualStore) {
  OpenWithCollection();
  pb::CollectionSpec spec;
  spec.set_name("named");
  for (int round = 0; round < 2; ++round) {
    Transaction transaction = store_->Begin();
    const uint32_t named = transaction.CreateCollection(spec);
    const auto old = transaction.PutDocument(named, MakeChange("a", "1 2", 1, 1), std::nullopt);
    transaction.PutDocument(named, MakeChange("a", "3 4", 1, 1), old);
    if (round == 0) transaction.DropCollection({named, spec});
    ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
    Put(MakeChange(StrCat("d", round), "one two three", 5, 7));
  }
  StoreOptions options = options_;
  options.path += "_replica";
  options.store_id = store_->identity().store_id;
  std::filesystem::remove_all(options.path);
  auto replica = Store::Open(options);
  ASSERT_TRUE(replica.ok()) << replica.status();
  const auto at = store_->TakeSnapshot();
  const auto replay = [&](const shardpb::PullChangesResponse& replicated) -> absl::Status {
    Transaction transaction = (*replica)->Begin();
    if (absl::Status status = transaction.Replay(replicated); !status.ok()) return status;
    return (*replica)->Commit(std::move(transaction));
  };
  const absl::Status replayed =
      store_->ScanLog(shardpb::Position(), at.get(), [&](const shardpb::Change& change) -> absl::StatusOr<bool> {
        constexpr size_t kWhole = size_t{1} << 30;
        if (absl::Status status = store_->ReadReplicated(change, at.get(), kWhole, replay); !status.ok()) return status;
        return true;
      });
  EXPECT_TRUE(replayed.ok()) << replayed;
  EXPECT_EQ((*replica)->Collections().size(), 2u);
  EXPECT_EQ((*replica)->ComputeDigest(CallContext())->sha256, store_->ComputeDigest(CallContext())->sha256);
  EXPECT_EQ((*replica)->FindCollection("named")->id, store_->FindCollection("named")->id);
  replica->reset();
  std::filesystem::remove_all(options.path);
}

TEST_F(StoreTest, SnapshotKeepsWhatItSaw) {
  options_.log_changes_max = 1;
  OpenWithCollection();
  const auto old = Put(MakeChange("a", "old text", 3, 1));
  const auto snapshot = store_->TakeSnapshot();
  Put(MakeChange("a", "new text", 3, 1));
  Put(MakeChange("b", "other", 3, 1));
  ASSERT_TRUE(store_->TrimLog().ok());
  EXPECT_EQ(RowsIn(old), 0u);
  const auto text = store_->ReadText(0, old, snapshot.get());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "old text");
}

// Of a store that lost the end of its log nobody makes another one in silence.
TEST_F(StoreTest, OneThatLostAcknowledgedChangesIsNotReadEither) {
  OpenWithCollection();
  Put(MakeChange("a", "text", 3, 1));
  const shardpb::Position last = store_->last_position();
  store_.reset();
  EXPECT_TRUE(Store::OpenSnapshot(options_.path).ok());
  {
    const auto mark = AcknowledgedMark::Open(options_.path + "/acknowledged");
    ASSERT_TRUE(mark.ok()) << mark.status();
    ASSERT_TRUE((*mark)->Write(MakePosition(last.epoch(), last.number() + 1)).ok());
  }
  EXPECT_EQ(ReasonOf(Store::OpenSnapshot(options_.path).status()), Reason::kStoreDamaged);
}

TEST_F(StoreTest, ACopyIsWholeOrIsNotThere) {
  OpenWithCollection();
  Put(MakeChange("a", "one two", 5, 1));
  const std::string copies = options_.path + "/copies";
  std::filesystem::create_directories(copies);
  const std::string folder = copies + "/copy";
  int asked = 0;
  ASSERT_TRUE(store_
                  ->Copy(folder,
                         [&] {
                           ++asked;
                           return absl::OkStatus();
                         })
                  .ok());
  EXPECT_GT(asked, 5) << "before each file at least";
  EXPECT_FALSE(store_->Copy(folder, [] { return absl::OkStatus(); }).ok()) << "it is there";
  ASSERT_TRUE(std::filesystem::exists(folder + "/CURRENT"));
  for (int ends_at = 1; ends_at <= asked; ++ends_at) {
    int asked_again = 0;
    const std::string other = copies + "/other";
    const absl::Status status = store_->Copy(
        other, [&] { return ++asked_again == ends_at ? absl::CancelledError("it is to end") : absl::OkStatus(); });
    EXPECT_EQ(status.message(), "it is to end");
    EXPECT_FALSE(std::filesystem::exists(other));
  }
  Put(MakeChange("b", "later", 5, 1));
  const std::string data = options_.path + "/copied";
  std::filesystem::create_directories(data);
  std::filesystem::rename(folder, data + "/rocksdb");
  const auto copy = Store::OpenSnapshot(data);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->last_position().number(), 2u);
  const auto record = (*copy)->ReadDocument(0, "a", nullptr);
  ASSERT_TRUE(record.ok() && record->has_value());
  EXPECT_EQ(*(*copy)->ReadText(0, **record, nullptr), "one two");
}

TEST_F(StoreTest, ADigestIsNotMadeForACallerWhoLeft) {
  OpenWithCollection();
  Put(MakeChange("a", "some text", 2, 1));
  EXPECT_TRUE(store_->ComputeDigest(CallContext()).ok());
  CallContext gone;
  gone.cancelled = [] { return true; };
  EXPECT_EQ(store_->ComputeDigest(gone).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(StoreTest, AReplicatedChangeThatFailsLeavesNoHoleInTheLog) {
  OpenWithCollection();
  Transaction transaction = store_->Begin();
  shardpb::PullChangesResponse removal, unknown, torn;
  *removal.mutable_change()->mutable_position() = transaction.position();
  removal.mutable_change()->mutable_position()->set_number(transaction.position().number() + 1);
  unknown = torn = removal;
  removal.mutable_change()->mutable_remove()->set_document_id("none");
  ASSERT_TRUE(transaction.Replay(removal).ok());
  const shardpb::Position last = transaction.position();
  unknown.mutable_change()->mutable_position()->set_number(last.number() + 1);
  EXPECT_EQ(ReasonOf(transaction.Replay(unknown)), Reason::kLayoutUnknown);
  *torn.mutable_change()->mutable_position() = unknown.change().position();
  torn.mutable_change()->mutable_put()->mutable_record()->mutable_chunks()->set_count(2);
  torn.add_chunks();
  EXPECT_EQ(ReasonOf(transaction.Replay(torn)), Reason::kStoreDamaged);
  ASSERT_TRUE(store_->Commit(std::move(transaction)).ok());
  EXPECT_EQ(store_->last_position().number(), last.number());
  EXPECT_TRUE(*store_->HasChange(store_->last_position(), nullptr));
}

TEST_F(StoreTest, SecondProcessIsRefused) {
  OpenWithCollection();
  const absl::Status status = Reopen();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), Reason::kStoreLocked);
  EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr(options_.path));
}

TEST_F(StoreTest, ForeignFoldersAreRefused) {
  options_.cluster = "north";
  OpenWithCollection();
  store_.reset();
  const StoreOptions own = options_;
  options_.cluster = "south";
  EXPECT_EQ(ReasonOf(Reopen()), Reason::kForeignStore);
  options_ = own;
  options_.shard_count = 2;
  EXPECT_EQ(ReasonOf(Reopen()), Reason::kForeignStore);
  options_ = own;
  options_.store_id = std::string(kStoreIdBytes, 'x');
  const absl::Status status = Reopen();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), Reason::kForeignStore);
  EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr(options_.path));
  options_ = own;
  EXPECT_TRUE(Reopen().ok());
}

// To RocksDB that is a record which a crash cut short.
TEST_F(StoreTest, AnAcknowledgedChangeWhoseRecordIsCutIsMissed) {
  OpenWithCollection();
  Put(MakeChange("a", "text", 5, 1));
  store_.reset();
  std::string log;
  for (const auto& entry : std::filesystem::directory_iterator(options_.path + "/rocksdb")) {
    if (entry.path().extension() == ".log") log = entry.path();
  }
  std::filesystem::resize_file(log, std::filesystem::file_size(log) - 1);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const absl::Status status = Reopen();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(ReasonOf(status), Reason::kStoreDamaged);
    EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr("it ends at change 1"));
    const std::string named = attempt == 0 ? log : options_.path;  // opening does away with a log
    EXPECT_THAT(std::string(MessageOf(status)), testing::HasSubstr(named));
  }
  std::filesystem::remove(options_.path + "/acknowledged");
  EXPECT_TRUE(Reopen().ok()) << "an operator can settle for what is left";
}

TEST_F(StoreTest, AStoreThatIsGoneIsNotMadeAnew) {
  OpenWithCollection();
  store_.reset();
  std::filesystem::remove_all(options_.path + "/rocksdb");
  EXPECT_EQ(ReasonOf(Reopen()), Reason::kStoreDamaged);
}

TEST_F(StoreTest, UnknownLayoutIsRefused) {
  OpenWithCollection();
  store_.reset();
  {
    KeyValueOptions rows;
    rows.path = options_.path + "/rocksdb";
    auto opened = KeyValueStore::Open(rows);
    ASSERT_TRUE(opened.ok());
    KeyValueBatch batch;
    batch.Put(Family::kMeta, "layout_version", Encode32(kLayoutVersion + 1));
    ASSERT_TRUE((*opened)->Write(batch).ok());
  }
  const absl::Status status = Reopen();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), Reason::kLayoutUnknown);
}

TEST_F(StoreTest, ACancelledCompactionEnds) {
  Open();
  EXPECT_TRUE(store_->Compact().ok());
  store_->CancelCompaction();
  EXPECT_EQ(ReasonOf(store_->Compact()), Reason::kShuttingDown);
}

// These bytes are in every store: if this test fails, the layout version must change.
TEST(LayoutTest, KeysNeverChange) {
  const uint32_t slot = SlotOfDocument("abc");
  EXPECT_EQ(DocumentKey(0x01020304, "abc"),
            std::string("\x01\x02\x03\x04") + static_cast<char>(slot >> 8) + static_cast<char>(slot & 0xFF) + "abc");
  EXPECT_EQ(MakeChunkId(5, 0x123), 0x5123u);
  EXPECT_EQ(HexEncode(ChunkKey(1, 0x5123)), "0000000101230000000000005123");
  EXPECT_EQ(HexEncode(ChangeKey(MakePosition(2, 3))), "00000000000000020000000000000003");
  Tombstone tombstone{7, {}};
  tombstone.rows.set_first_chunk_id(0x5123);
  tombstone.rows.set_count(9);
  EXPECT_EQ(HexEncode(EncodeTombstone(tombstone)), "00000007000000000000512300000009");
  EXPECT_EQ(DecodeTombstone(EncodeTombstone(tombstone))->rows.count(), 9u);
  EXPECT_EQ(ChunkNumber(0x5123, ChunkIdAt(0x5123, 4)), 4u);
  EXPECT_EQ(AfterPrefix(std::string("a\xFF")), "b");
  EXPECT_EQ(AfterPrefix("\xFF"), "");
}

}  // namespace
}  // namespace retro
