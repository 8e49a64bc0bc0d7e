#include "common/document/document_limits.h"

#include <gtest/gtest.h>

#include <limits>

#include "common/base/error.h"

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

TEST(DocumentLimitsTest, NamesTheWrongField) {
  EXPECT_TRUE(CheckDocument(Sample(), "document").ok());
  const auto field_of = [](const pb::Document& document) { return FieldOf(CheckDocument(document, "document")); };
  pb::Document bad = Sample();
  bad.set_id("");
  EXPECT_EQ(field_of(bad), "document.id");
  bad.set_id("a\nb");
  EXPECT_EQ(field_of(bad), "document.id");
  bad.set_id(std::string(kDocumentIdBytesMax + 1, 'x'));
  EXPECT_EQ(field_of(bad), "document.id");
  bad = Sample();
  bad.set_text("");
  EXPECT_EQ(field_of(bad), "document.text");
  bad.set_text(std::string(kTextBytesMax + 1, 'x'));
  EXPECT_EQ(field_of(bad), "document.text");
  bad.set_text("bad \xC3( utf-8");
  EXPECT_EQ(field_of(bad), "document.text");
  bad = Sample();
  (*bad.mutable_metadata())["a"].mutable_values(0)->set_number_value(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(field_of(bad), "document.metadata[\"a\"].values[0]");
  bad = Sample();
  (*bad.mutable_metadata())["a"].clear_values();
  EXPECT_EQ(field_of(bad), "document.metadata[\"a\"]");
}

// Else the error could not be sent: strings on the wire are UTF-8.
TEST(DocumentLimitsTest, AKeyThatIsTooLongIsNamedInWholeCharacters) {
  pb::Document bad = Sample();
  (*bad.mutable_metadata())[std::string(kMetadataKeyBytesMax - 1, 'k') + "\xE2\x82\xAC"].add_values()->set_int_value(1);
  EXPECT_EQ(FieldOf(CheckDocument(bad, "document")),
            "document.metadata[\"" + std::string(kMetadataKeyBytesMax - 1, 'k') + "\"]");
}

TEST(DocumentLimitsTest, MetadataIsBoundedAsAWhole) {
  pb::Document document;
  document.set_id("a");
  document.set_text("text");
  for (int i = 0; i < 20; ++i) {
    (*document.mutable_metadata())["key" + std::to_string(i)].add_values()->set_string_value(std::string(4096, 'x'));
  }
  EXPECT_EQ(FieldOf(CheckDocument(document, "document")), "document.metadata");
  document.mutable_metadata()->erase("key0");
  for (int i = 0; i < 10; ++i) document.mutable_metadata()->erase("key" + std::to_string(i));
  EXPECT_TRUE(CheckDocument(document, "document").ok());
}

}  // namespace
}  // namespace retro
