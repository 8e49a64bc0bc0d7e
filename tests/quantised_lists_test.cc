// Which indexes are taken, and that making one does not depend on how many threads make it.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/document/half.h"
#include "retriever_service/index/faiss_library.h"

namespace retro {
namespace {

constexpr uint32_t kSeed = 20261129;
constexpr int kDimension = 16;
constexpr size_t kRows = 6000;

class QuantisedListsTest : public testing::Test {
 protected:
  QuantisedListsTest() {
    std::mt19937 random(kSeed);
    std::normal_distribution<float> normal;
    std::vector<float> vectors(kRows * kDimension);
    for (float& x : vectors) x = normal(random);
    halves_ = ToHalf(vectors);
    const size_t bytes = kDimension * kHalfBytes;
    for (size_t row = 0; row < kRows; ++row) rows_.push_back(std::string_view(halves_).substr(row * bytes, bytes));
  }

  // On a stack of its own: ThreadSanitizer does not see that FAISS's threads have left it when a call of FAISS returns.
  std::string Made(const std::string& kind, int threads) const {
    std::string bytes;
    std::thread([&] { Make(kind, threads, bytes); }).join();
    return bytes;
  }

  void Make(const std::string& kind, int threads, std::string& bytes) const {
    const std::atomic<bool> stop = false;
    const auto lists = QuantisedLists::Train(kind, kDimension, rows_, threads, stop);
    ASSERT_TRUE(lists.ok()) << lists.status();
    EXPECT_TRUE((*lists)->Add(rows_, threads).ok());
    const auto append = [&](std::string_view some) {
      bytes += some;
      return absl::OkStatus();
    };
    EXPECT_TRUE((*lists)->Write(append).ok());
  }

  static absl::Status Taken(const std::string& bytes) {
    return QuantisedLists::Parse(bytes, kDimension, kRows).status();
  }

  std::string halves_;
  std::vector<std::string_view> rows_;
};

TEST_F(QuantisedListsTest, AreTheSameOfAnyNumberOfThreads) {
  for (const char* kind : {"IVF16,PQ8x4fs", "IVF16,SQ8", "IVF16_HNSW32,PQ8x4fs"}) {
    const std::string bytes = Made(kind, 1);
    EXPECT_TRUE(bytes == Made(kind, 3)) << kind;
    EXPECT_TRUE(Taken(bytes).ok()) << kind << ": " << Taken(bytes);
  }
}

TEST_F(QuantisedListsTest, OfAKindThatIsNotSearchedAreRefused) {
  for (const char* kind : {"IVF16,PQ8x4fsr", "IVF16,PQ8x4fs_64", "IVF16,PQ8", "IVF16,Flat"}) {
    EXPECT_EQ(Taken(Made(kind, 1)).code(), absl::StatusCode::kDataLoss) << kind;
  }
}

TEST_F(QuantisedListsTest, OfOtherRowsOrDimensionAreRefused) {
  const std::string bytes = Made("IVF16,PQ8x4fs", 1);
  EXPECT_EQ(QuantisedLists::Parse(bytes, kDimension + 2, kRows).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(QuantisedLists::Parse(bytes, kDimension, kRows - 1).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Taken(bytes + "x").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Taken(bytes.substr(0, bytes.size() - 1)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(QuantisedListsTest, FindARowByItsOwnVector) {
  for (const char* kind : {"IVF16,PQ8x4fs", "IVF16,SQ8", "IVF16_HNSW32,PQ8x4fs"}) {
    const std::string bytes = Made(kind, 1);
    const auto lists = QuantisedLists::Parse(bytes, kDimension, kRows);
    ASSERT_TRUE(lists.ok()) << lists.status();
    std::vector<float> queries(20 * kDimension);
    FromHalf(std::string_view(halves_).substr(0, queries.size() * kHalfBytes), queries);
    std::vector<int64_t> found(20 * 50);
    ASSERT_TRUE((*lists)->Search(queries, 4, 50, found).ok());
    for (int64_t row = 0; row < 20; ++row) {
      EXPECT_EQ(std::count(found.begin() + row * 50, found.begin() + (row + 1) * 50, row), 1) << kind << ", " << row;
    }
    EXPECT_TRUE((*lists)->Search(queries, 4, 0, {}).ok()) << "nothing is asked for";
  }
}

}  // namespace
}  // namespace retro
