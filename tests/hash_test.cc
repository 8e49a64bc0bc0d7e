#include "common/base/hash.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace retro {
namespace {

TEST(HashTest, Sha256MatchesFips180Vector) {
  EXPECT_EQ(HexEncode(Sha256Bytes("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(HashTest, FieldsDoNotRunTogether) {
  Sha256 a, b;
  a.UpdateField("ab");
  a.UpdateField("c");
  b.UpdateField("a");
  b.UpdateField("bc");
  EXPECT_NE(a.Finish(), b.Finish());
}

// These values are on disk in every store: if this test fails, the change must not be made.
TEST(HashTest, ContentBehindItsChecksum) {
  const std::string bytes = WithChecksum("content");
  EXPECT_EQ(ContentOf(bytes), "content");
  EXPECT_EQ(ContentOf(WithChecksum("")), "");
  for (size_t length = 0; length < bytes.size(); ++length) EXPECT_EQ(ContentOf(bytes.substr(0, length)), std::nullopt);
}

TEST(HashTest, SlotsNeverChange) {
  EXPECT_EQ(SlotOfDocument(""), 0xef46db3751d8e999ULL % kSlotCount);
  EXPECT_EQ(SlotOfDocument("abc"), 0x44bc2cf5ad770999ULL % kSlotCount);
}

}  // namespace
}  // namespace retro
