// Deletions on one shard: by id and by filter, counted first, and beside writes.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "tests/local_shard_fixture.h"

namespace retro {
namespace {

TEST_F(LocalShardTest, DeletesByIdAndFilterAndCountsFirst) {
  for (int i = 0; i < 10; ++i) {
    pb::Document document = MakeDocument(StrCat("d", i), "text");
    (*document.mutable_metadata())["n"].add_values()->set_int_value(i);
    Write(Whole(document, {1, 0, 0, 0}));
  }
  shardpb::DeleteRequest by_id;
  for (const char* id : {"d0", "d1", "d1", "none"}) by_id.add_document_ids(id);
  shardpb::DeleteRequest by_filter;
  by_filter.mutable_filter()->mutable_range()->mutable_field()->set_metadata_key("n");
  by_filter.mutable_filter()->mutable_range()->mutable_at_least()->set_int_value(6);
  for (shardpb::DeleteRequest* request : {&by_id, &by_filter}) {
    const uint64_t expected = request == &by_id ? 2 : 4;
    request->set_dry_run(true);
    EXPECT_EQ(shard_->Delete(*request, context_)->deleted_count(), expected);
    request->set_dry_run(false);
    EXPECT_EQ(shard_->Delete(*request, context_)->deleted_count(), expected);
    EXPECT_EQ(shard_->Delete(*request, context_)->deleted_count(), 0u);
  }
  EXPECT_EQ(ReasonOf(Get("d0").status()), Reason::kNotFound);
  EXPECT_EQ(Search({1, 0, 0, 0}, 100).results(0).neighbours_size(), 4);
  Open();
  EXPECT_EQ(Search({1, 0, 0, 0}, 100).results(0).neighbours_size(), 4);
}

// One finds nothing left of all that it has listed, and goes on.
TEST_F(LocalShardTest, TwoDeletionsSideBySideLeaveNothing) {
  constexpr int kListed = 16'384;  // at once
  constexpr int kPart = 1024;
  constexpr int kMore = 100;
  std::vector<shardpb::DocumentChange> changes;
  changes.reserve(2 * kListed + kMore);
  for (int i = 0; i < 2 * kListed + kMore; ++i) {
    changes.push_back(Whole(MakeDocument(StrCat("d", i), "text"), {1, 0, 0, 0}));
  }
  ASSERT_TRUE(shard_->Write(Request(changes), context_).ok());
  shardpb::DeleteRequest all;
  all.mutable_filter()->mutable_exists()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
  int parts = 1, parts_of_other = 1;
  const auto ends_after_one_list = [&](const shardpb::Position&) {
    return ++parts_of_other > kListed / kPart ? absl::CancelledError("as many as are listed") : absl::OkStatus();
  };
  const auto deleted = shard_->DeleteInParts(all, context_, [&](const shardpb::Position&) {
    if (++parts == kListed / kPart + 1) {  // the second list begins
      EXPECT_FALSE(shard_->DeleteInParts(all, context_, ends_after_one_list).ok());
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->deleted_count(), static_cast<uint64_t>(kListed + kMore));
  EXPECT_EQ(shard_->Stats({}, context_)->stats().collections(0).documents(), 0u);
}

TEST_F(LocalShardTest, WritesGoOnDuringALongDeletion) {
  constexpr int kDocuments = 18'000;  // more than a deletion lists at once
  constexpr uint64_t kWithoutAWriteMax = 6000;
  constexpr int kWriters = 3;
  std::vector<shardpb::DocumentChange> changes;
  changes.reserve(kDocuments);
  for (int i = 0; i < kDocuments; ++i) changes.push_back(Whole(MakeDocument(StrCat("old", i), "text"), {1, 0, 0, 0}));
  ASSERT_TRUE(shard_->Write(Request(changes), context_).ok());
  std::atomic<bool> over = false;
  std::atomic<int> written = 0;
  Mutex mutex;
  std::set<uint64_t> positions;
  std::vector<std::thread> writers;
  writers.reserve(kWriters);
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; !over; ++i) {
        const auto response =
            shard_->Write(Request({Whole(MakeDocument(StrCat("new", w, "-", i), "text"), {1, 0, 0, 0})}), context_);
        ASSERT_TRUE(response.ok()) << response.status();
        const MutexLock lock(mutex);
        positions.insert(response->position().number());
        ++written;
      }
    });
  }
  while (written == 0) std::this_thread::yield();
  shardpb::DeleteRequest all;
  all.mutable_filter()->mutable_exists()->mutable_field()->set_builtin(pb::BUILTIN_FIELD_ID);
  const auto deleted = shard_->Delete(all, context_);
  over = true;
  for (std::thread& writer : writers) writer.join();
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_GE(deleted->deleted_count(), static_cast<uint64_t>(kDocuments));
  uint64_t widest = 0;
  for (auto it = positions.begin(); std::next(it) != positions.end(); ++it) {
    widest = std::max(widest, *std::next(it) - *it);
  }
  EXPECT_LT(widest, kWithoutAWriteMax) << "no write came between so many deletions";
}

}  // namespace
}  // namespace retro
