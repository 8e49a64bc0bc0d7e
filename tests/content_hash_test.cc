#include "common/document/content_hash.h"

#include <gtest/gtest.h>

#include "common/base/hash.h"

namespace retro {
namespace {

pb::Document Sample() {
  pb::Document document;
  document.set_id("d");
  document.set_title("t");
  document.set_text("text");
  document.set_source("s");
  (*document.mutable_metadata())["a"].add_values()->set_int_value(1);
  (*document.mutable_metadata())["b"].add_values()->set_string_value("x");
  return document;
}

// In every store: if this fails, every document would be written again.
TEST(ContentHashTest, NeverChanges) {
  EXPECT_EQ(HexEncode(ContentHash(Sample())), "1726e0cc98dda2e90533106b8cb1b237d307e6ecba243b577428b73eece29781");
}

TEST(ContentHashTest, CoversContentAndNothingElse) {
  const std::string hash = ContentHash(Sample());
  pb::Document other = Sample();
  other.set_id("another");
  other.set_external_version(4);
  EXPECT_EQ(ContentHash(other), hash);
  other = Sample();
  other.set_title("tt");
  other.set_text("ext");
  EXPECT_NE(ContentHash(other), hash);
  other = Sample();
  (*other.mutable_metadata())["a"].mutable_values(0)->set_number_value(1);
  EXPECT_NE(ContentHash(other), hash);
  other = Sample();
  (*other.mutable_metadata())["a"].add_values()->set_int_value(1);
  EXPECT_NE(ContentHash(other), hash);
}

}  // namespace
}  // namespace retro
