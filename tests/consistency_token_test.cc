#include "retriever_service/query/consistency_token.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace retro {
namespace {

shard::v1::Position At(uint64_t epoch, uint64_t number) {
  shard::v1::Position position;
  position.set_epoch(epoch);
  position.set_number(number);
  return position;
}

std::string Token() {
  shard::v1::ConsistencyToken token;
  token.set_store_id("store-0123456789");
  Cover(token, 2, At(1, 7));
  return EncodeConsistencyToken(token);
}

TEST(ConsistencyTokenTest, CoversAccumulate) {
  shard::v1::ConsistencyToken token;
  Cover(token, 0, At(1, 5));
  Cover(token, 0, At(1, 3));  // older: nothing is forgotten
  Cover(token, 3, At(2, 1));
  EXPECT_EQ(PositionOn(token, 0)->number(), 5u);
  Cover(token, 0, At(2, 1));  // a later epoch comes after every number of an earlier one
  EXPECT_EQ(PositionOn(token, 0)->epoch(), 2u);
  EXPECT_FALSE(PositionOn(token, 1).has_value());
}

TEST(ConsistencyTokenTest, RoundTrip) {
  const auto token = DecodeConsistencyToken(Token(), "store-0123456789");
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(PositionOn(*token, 2)->number(), 7u);
}

TEST(ConsistencyTokenTest, EmptyHasSeenNothing) {
  const auto token = DecodeConsistencyToken("", "store-0123456789");
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->positions_size(), 0);
}

TEST(ConsistencyTokenTest, EveryFlippedByteIsNoticed) {
  const std::string good = Token();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x20);
    const auto token = DecodeConsistencyToken(bad, "store-0123456789");
    EXPECT_EQ(token.status().code(), absl::StatusCode::kInvalidArgument) << "byte " << i;
  }
  EXPECT_FALSE(DecodeConsistencyToken(good.substr(0, good.size() - 1), "store-0123456789").ok());
}

TEST(ConsistencyTokenTest, AnotherStoresTokenIsRefused) {
  const auto token = DecodeConsistencyToken(Token(), "store-9876543210");
  EXPECT_EQ(token.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(token.status()), Reason::kForeignStore);
}

}  // namespace
}  // namespace retro
