// Indexes that see the same changes come to the same segments, whenever and in whatever batches they came.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "retriever_service/index/segmented_index.h"
#include "retriever_service/store/layout.h"
#include "tests/index_model.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr int kDimension = 24;
constexpr uint32_t kSeed = 20261127;
constexpr uint32_t kClusters = 40;
constexpr uint32_t kDocuments = 1500;
const shardpb::Position kPosition = MakePosition(1, 1 << 20);

// One of several that follow the same model, each in its own way.
class Follower {
 public:
  explicit Follower(const std::string& folder) {
    options_.settings.seal_rows = 400;
    options_.folder = folder;
    options_.identity = {std::string(16, 's'), 7, kDimension, options_.settings.kind};
    options_.block_rows = 64;
    options_.background = false;
  }

  void Open(const IndexModel& model) {
    index_ = std::make_unique<SegmentedIndex>(options_, kPosition);
    restored_ += index_->has_sealed_segments() ? 1 : 0;
    model.Fill(*index_);
  }
  void Take(const std::vector<IndexChange>& changes) {
    waiting_.insert(waiting_.end(), changes.begin(), changes.end());
  }
  // What was taken, in batches of so many.
  void Apply(size_t batch) {
    for (size_t i = 0; i < waiting_.size(); i += batch) {
      const size_t end = std::min(waiting_.size(), i + batch);
      index_->Apply({waiting_.begin() + static_cast<ptrdiff_t>(i), waiting_.begin() + static_cast<ptrdiff_t>(end)},
                    kPosition);
    }
    waiting_.clear();
  }
  bool Maintain() {
    const absl::StatusOr<bool> did = index_->Maintain();
    EXPECT_TRUE(did.ok()) << did.status();
    return did.ok() && *did;
  }
  void Settle() {
    while (Maintain()) {
    }
  }
  // The files of all segments, in no order that depends on when they were made.
  std::vector<std::string> Segments() const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(options_.folder)) {
      if (entry.path().filename() != "manifest") files.push_back(*ReadFile(entry.path()));
    }
    std::sort(files.begin(), files.end());
    return files;
  }
  Hits Search(const std::vector<float>& vector) const {
    const std::vector<IndexQuery> queries = {{vector, {}}};
    const auto found = index_->Search(queries, {.k = 10, .effort = 0.1}, CallContext());
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? Flatten(found->hits[0]) : Hits();
  }
  IndexStats Stats() const { return index_->Stats(); }
  const std::string& folder() const { return options_.folder; }
  int restored() const { return restored_; }  // so many times with segments

 private:
  SegmentedIndexOptions options_;
  std::unique_ptr<SegmentedIndex> index_;
  std::vector<IndexChange> waiting_;
  int restored_ = 0;
};

void ExpectEqual(const Follower& a, const Follower& b, IndexModel& model) {
  const std::vector<std::string> segments = a.Segments();
  EXPECT_GT(segments.size(), 6u) << "several of three files each";
  EXPECT_TRUE(segments == b.Segments());
  for (int i = 0; i < 50; ++i) {
    const std::vector<float> vector = model.ClusteredVector(kClusters);
    EXPECT_EQ(a.Search(vector), b.Search(vector)) << "seed " << kSeed << " query " << i;
  }
}

TEST(IndexAgreementTest, WhateverTheBatchesAndTheTimes) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  Follower prompt(folder.path() + "/prompt"), late(folder.path() + "/late"), at_last(folder.path() + "/at_last");
  for (Follower* follower : {&prompt, &late, &at_last}) follower->Open(model);
  for (int round = 0; round < 60; ++round) {
    // Deletions of many now and then, so that much of a segment is gone.
    std::vector<IndexChange> changes = model.Churn(60, kDocuments, kClusters);
    for (uint32_t i = 0; round % 20 == 19 && i < kDocuments / 3; ++i) {
      if (model.documents().contains(StrCat("doc", i))) changes.push_back(model.Remove(StrCat("doc", i)));
    }
    for (Follower* follower : {&prompt, &late, &at_last}) follower->Take(changes);
    prompt.Apply(1);
    prompt.Settle();
    if (round % 7 == 0) late.Apply(97);
    if (round % 5 == 0) late.Maintain();
  }
  late.Apply(31);
  at_last.Apply(1 << 20);
  late.Settle();
  at_last.Settle();
  ExpectEqual(prompt, late, model);
  ExpectEqual(prompt, at_last, model);
}

TEST(IndexAgreementTest, AfterRestartsAndAsACopy) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  Follower steady(folder.path() + "/steady"), restarting(folder.path() + "/restarting"), copy(folder.path() + "/copy");
  steady.Open(model);
  restarting.Open(model);
  for (int round = 0; round < 60; ++round) {
    const std::vector<IndexChange> changes = model.Churn(60, kDocuments, kClusters, /*of_metadata=*/false);
    for (Follower* follower : {&steady, &restarting}) follower->Take(changes);
    if (round > 30) copy.Take(changes);
    steady.Apply(11);
    if (round % 3 == 0) steady.Maintain();
    restarting.Apply(60);
    if (round % 11 == 0) {
      restarting.Settle();
      restarting.Open(model);
    }
    if (round != 30) continue;
    restarting.Settle();
    std::filesystem::copy(restarting.folder(), copy.folder());
    copy.Open(model);
  }
  copy.Apply(7);
  for (Follower* follower : {&steady, &restarting, &copy}) follower->Settle();
  EXPECT_GE(restarting.restored(), 4);
  EXPECT_EQ(copy.restored(), 1);
  ExpectEqual(steady, restarting, model);
  ExpectEqual(steady, copy, model);
}

// The oldest, which was merged from several, one in the middle, and the newest.
TEST(IndexAgreementTest, AfterAnyOneOfItsSegmentsWasLost) {
  const TemporaryFolder folder;
  IndexModel model(kDimension, kSeed);
  Follower whole(folder.path() + "/whole");
  whole.Open(model);
  std::vector<IndexChange> changes;
  while (model.chunks() < 2700) changes.push_back(model.Put(StrCat("doc", changes.size()), 1 + changes.size() % 5));
  whole.Take(changes);
  whole.Apply(50);
  whole.Settle();
  int segments = 0;
  for (const auto& entry : std::filesystem::directory_iterator(whole.folder())) {
    if (entry.path().extension() != ".vectors") continue;
    SCOPED_TRACE(entry.path().string());
    Follower one_lost(StrCat(folder.path(), "/one_lost", segments++));
    std::filesystem::copy(whole.folder(), one_lost.folder());
    std::filesystem::remove(std::filesystem::path(one_lost.folder()) / entry.path().filename());
    one_lost.Open(model);
    EXPECT_EQ(one_lost.restored(), 1);
    one_lost.Settle();
    ExpectEqual(whole, one_lost, model);
  }
  EXPECT_EQ(segments, 3) << "one of four cells, and two of one";
}

}  // namespace
}  // namespace retro
