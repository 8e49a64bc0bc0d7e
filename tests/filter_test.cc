#include "retriever_service/index/filter.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/document/document_limits.h"

namespace retro {
namespace {

pb::Filter Parse(const std::string& text) {
  pb::Filter filter;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &filter)) << text;
  return filter;
}

IndexedDocument Sample() {
  shardpb::DocumentRecord record;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(document { id: "doc-1" source: "/a/b"
           metadata { key: "year" value { values { int_value: 1999 } } }
           metadata { key: "score" value { values { number_value: 2.5 } values { number_value: 7 } } }
           metadata { key: "tag" value { values { string_value: "red" } values { string_value: "blue" } } }
           metadata { key: "big" value { values { int_value: 9007199254740993 } } }
           metadata { key: "when" value { values { time_value { seconds: 100 nanos: 5 } } } } })",
      &record));
  return ToIndexedDocument(record);
}

bool Matches(const std::string& text) {
  const auto filter = CompiledFilter::Compile(Parse(text), "filter");
  EXPECT_TRUE(filter.ok()) << text << ": " << filter.status();
  return filter.ok() && filter->Matches(Sample());
}

std::string WrongField(const std::string& text) {
  const auto filter = CompiledFilter::Compile(Parse(text), "filter");
  EXPECT_EQ(filter.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return FieldOf(filter.status()).value_or("(none)");
}

std::string Equals(const std::string& key, const std::string& value) {
  return "equals { field { metadata_key: \"" + key + "\" } value { " + value + " } }";
}

std::string Range(const std::string& key, const std::string& bounds) {
  return "range { field { metadata_key: \"" + key + "\" } " + bounds + " }";
}

TEST(FilterTest, EqualsAnyOfTheValues) {
  EXPECT_TRUE(Matches(Equals("tag", "string_value: 'red'")));
  EXPECT_TRUE(Matches(Equals("tag", "string_value: 'blue'")));
  EXPECT_FALSE(Matches(Equals("tag", "string_value: 'green'")));
  EXPECT_FALSE(Matches(Equals("none", "string_value: 'red'")));
  EXPECT_TRUE(Matches("equals { field { builtin: BUILTIN_FIELD_ID } value { string_value: 'doc-1' } }"));
  EXPECT_TRUE(Matches("equals { field { builtin: BUILTIN_FIELD_SOURCE } value { string_value: '/a/b' } }"));
  EXPECT_FALSE(Matches("equals { field { builtin: BUILTIN_FIELD_ID } value { string_value: '/a/b' } }"));
}

TEST(FilterTest, IntegersAndNumbersCompareByValue) {
  EXPECT_TRUE(Matches(Equals("year", "number_value: 1999")));
  EXPECT_TRUE(Matches(Equals("score", "int_value: 7")));
  EXPECT_FALSE(Matches(Equals("score", "int_value: 2")));
  EXPECT_FALSE(Matches(Equals("year", "string_value: '1999'")));
  // As doubles the two would be equal.
  EXPECT_FALSE(Matches(Equals("big", "number_value: 9007199254740992")));
  EXPECT_TRUE(Matches(Range("big", "greater_than { number_value: 9007199254740992 }")));
  EXPECT_TRUE(Matches(Range("big", "less_than { number_value: 1e300 }")));
  EXPECT_TRUE(Matches(Range("big", "greater_than { number_value: -1e300 }")));
}

TEST(FilterTest, RangesHaveOpenAndClosedEnds) {
  EXPECT_TRUE(Matches(Range("year", "at_least { int_value: 1999 } at_most { int_value: 1999 }")));
  EXPECT_FALSE(Matches(Range("year", "greater_than { int_value: 1999 }")));
  EXPECT_FALSE(Matches(Range("year", "less_than { int_value: 1999 }")));
  EXPECT_TRUE(Matches(Range("year", "greater_than { number_value: 1998.5 } less_than { number_value: 1999.5 }")));
  EXPECT_TRUE(Matches(Range("tag", "at_least { string_value: 'r' }")));
  EXPECT_FALSE(Matches(Range("tag", "at_least { string_value: 's' }")));
  EXPECT_TRUE(Matches(Range("when", "at_least { time_value { seconds: 100 } }")));
  EXPECT_FALSE(Matches(Range("when", "greater_than { time_value { seconds: 100 nanos: 5 } }")));
  EXPECT_FALSE(Matches(Range("when", "at_least { int_value: 1 }"))) << "another kind";
  EXPECT_FALSE(Matches(Range("score", "greater_than { number_value: 3 } less_than { number_value: 6 }")))
      << "no single value is between, though 2.5 is below 6 and 7 above 3";
}

TEST(FilterTest, InAndExists) {
  EXPECT_TRUE(
      Matches("in { field { metadata_key: 'tag' } values { string_value: 'x' } values { string_value: 'red' } }"));
  EXPECT_TRUE(
      Matches("in { field { metadata_key: 'year' } values { string_value: 'x' } values { number_value: 1999 } "
              "values { int_value: 3 } }"));
  EXPECT_FALSE(Matches("in { field { metadata_key: 'tag' } values { string_value: 'x' } values { int_value: 1 } }"));
  EXPECT_TRUE(Matches("exists { field { metadata_key: 'when' } }"));
  EXPECT_FALSE(Matches("exists { field { metadata_key: 'where' } }"));
  EXPECT_TRUE(Matches("exists { field { builtin: BUILTIN_FIELD_SOURCE } }"));
}

TEST(FilterTest, ListsJoin) {
  const std::string yes = "filters { " + Equals("year", "int_value: 1999") + " } ";
  const std::string no = "filters { " + Equals("year", "int_value: 2000") + " } ";
  EXPECT_TRUE(Matches("all_of { " + yes + yes + " }"));
  EXPECT_FALSE(Matches("all_of { " + yes + no + " }"));
  EXPECT_TRUE(Matches("all_of {}"));
  EXPECT_TRUE(Matches("any_of { " + no + yes + " }"));
  EXPECT_FALSE(Matches("any_of { " + no + no + " }"));
  EXPECT_FALSE(Matches("any_of {}"));
  EXPECT_TRUE(Matches("none_of { " + no + no + " }"));
  EXPECT_FALSE(Matches("none_of { " + no + yes + " }"));
  EXPECT_TRUE(Matches("none_of {}"));
}

TEST(FilterTest, WrongOnesAreNamed) {
  EXPECT_EQ(WrongField(""), "filter");
  EXPECT_EQ(WrongField("all_of { filters { all_of {} } filters {} }"), "filter.all_of.filters[1]");
  EXPECT_EQ(WrongField("equals { value { int_value: 1 } }"), "filter.equals.field");
  EXPECT_EQ(WrongField("equals { field { metadata_key: 'a' } }"), "filter.equals.value");
  EXPECT_EQ(WrongField(Equals("a", "number_value: nan")), "filter.equals.value");
  EXPECT_EQ(WrongField("in { field { metadata_key: 'a' } }"), "filter.in.values");
  EXPECT_EQ(WrongField(Range("a", "")), "filter.range");
  EXPECT_EQ(WrongField(Range("a", "at_least { int_value: 1 } at_most { string_value: 'x' }")), "filter.range");
  EXPECT_EQ(WrongField(Range("a", "at_least { int_value: 1 } greater_than { int_value: 1 }")), "filter.range");
  EXPECT_EQ(WrongField("exists { field { builtin: BUILTIN_FIELD_UNSPECIFIED } }"), "filter.exists.field.builtin");
}

// Longer than a document's, a key matches nothing, and would be copied for each condition.
TEST(FilterTest, KeysAreAsLongAsThoseOfDocuments) {
  EXPECT_FALSE(Matches(Equals(std::string(kMetadataKeyBytesMax, 'k'), "int_value: 1")));
  EXPECT_EQ(WrongField(Equals(std::string(kMetadataKeyBytesMax + 1, 'k'), "int_value: 1")),
            "filter.equals.field.metadata_key");
}

TEST(FilterTest, DepthAndSizeAreBounded) {
  const auto nested = [](int depth) {
    pb::Filter filter;
    filter.mutable_all_of();
    for (int i = 1; i < depth; ++i) {
      pb::Filter outer;
      *outer.mutable_all_of()->add_filters() = filter;
      filter = outer;
    }
    return CompiledFilter::Compile(filter, "filter").status();
  };
  EXPECT_TRUE(nested(kFilterDepthMax).ok());
  EXPECT_EQ(nested(kFilterDepthMax + 1).code(), absl::StatusCode::kInvalidArgument);
  const auto wide = [](int values) {
    pb::Filter filter;
    filter.mutable_in()->mutable_field()->set_metadata_key("a");
    for (int i = 0; i < values; ++i) filter.mutable_in()->add_values()->set_int_value(i);
    return CompiledFilter::Compile(filter, "filter").status();
  };
  EXPECT_TRUE(wide(kFilterSizeMax - 1).ok());
  EXPECT_EQ(wide(kFilterSizeMax).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace retro
