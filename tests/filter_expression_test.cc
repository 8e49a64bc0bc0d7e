#include "cli/filter_expression.h"

#include <string>

#include "common/base/strings.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace retro::cli {
namespace {

using ::retro::retriever::v1::Filter;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Parsed(const std::string& expression) {
  const auto filter = ParseFilterExpression(expression);
  return filter.ok() ? filter->ShortDebugString() : std::string(MessageOf(filter.status()));
}

std::string Text(const std::string& proto) {
  Filter filter;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(proto, &filter)) << proto;
  return filter.ShortDebugString();
}

TEST(FilterExpressionTest, Comparisons) {
  EXPECT_EQ(Parsed(R"(lang = "en")"),
            Text(R"(equals { field { metadata_key: "lang" } value { string_value: "en" } })"));
  EXPECT_EQ(Parsed("lang == 'en'"), Parsed(R"(lang = "en")"));
  EXPECT_EQ(Parsed("n != -3"),
            Text("none_of { filters { equals { field { metadata_key: 'n' } value { int_value: -3 } } } }"));
  EXPECT_EQ(Parsed("n < 1.5"), Text("range { field { metadata_key: 'n' } less_than { number_value: 1.5 } }"));
  EXPECT_EQ(Parsed("n <= +2"), Text("range { field { metadata_key: 'n' } at_most { int_value: 2 } }"));
  EXPECT_EQ(Parsed("n > 1e3"), Text("range { field { metadata_key: 'n' } greater_than { number_value: 1000 } }"));
  EXPECT_EQ(Parsed("n >= 9223372036854775807"),
            Text("range { field { metadata_key: 'n' } at_least { int_value: 9223372036854775807 } }"));
  EXPECT_EQ(Parsed("n between 2 and 4"),
            Text("range { field { metadata_key: 'n' } at_least { int_value: 2 } at_most { int_value: 4 } }"));
}

TEST(FilterExpressionTest, FieldsAndValues) {
  EXPECT_THAT(Parsed("id = 'a'"), HasSubstr("BUILTIN_FIELD_ID"));
  EXPECT_THAT(Parsed("source = 'a'"), HasSubstr("BUILTIN_FIELD_SOURCE"));
  EXPECT_EQ(Parsed("`id` = 'a'"), Text("equals { field { metadata_key: 'id' } value { string_value: 'a' } }"));
  EXPECT_EQ(Parsed("`two words` = 'a'"),
            Text("equals { field { metadata_key: 'two words' } value { string_value: 'a' } }"));
  EXPECT_EQ(Parsed(R"(x.y-z = "q\"\\\n")"),
            Text(R"(equals { field { metadata_key: "x.y-z" } value { string_value: "q\"\\\n" } })"));
  EXPECT_EQ(Parsed("d >= time(\"1970-01-02\")"),
            Text("range { field { metadata_key: 'd' } at_least { time_value { seconds: 86400 } } }"));
  EXPECT_EQ(Parsed("d < time('1970-01-01T00:00:01.5Z')"),
            Text("range { field { metadata_key: 'd' } less_than { time_value { seconds: 1 nanos: 500000000 } } }"));
  EXPECT_EQ(Parsed("source not in ('a', 2)"),
            Text("none_of { filters { in { field { builtin: BUILTIN_FIELD_SOURCE } values { string_value: 'a' } "
                 "values { int_value: 2 } } } }"));
}

TEST(FilterExpressionTest, AndBindsCloserThanOrAndNotClosest) {
  EXPECT_EQ(Parsed("exists(a) or exists(b) and not exists(c)"),
            Text("any_of { filters { exists { field { metadata_key: 'a' } } } filters { all_of { "
                 "filters { exists { field { metadata_key: 'b' } } } "
                 "filters { none_of { filters { exists { field { metadata_key: 'c' } } } } } } } }"));
  EXPECT_EQ(Parsed("(exists(a) OR exists(b)) AND exists(c)"),
            Text("all_of { filters { any_of { filters { exists { field { metadata_key: 'a' } } } "
                 "filters { exists { field { metadata_key: 'b' } } } } } filters { exists { field { metadata_key: 'c' "
                 "} } } }"));
  // A chain is one list, not a tree as deep as it is long.
  EXPECT_EQ(Parsed("exists(a) and exists(b) and exists(c)"),
            Text("all_of { filters { exists { field { metadata_key: 'a' } } } filters { exists { field { metadata_key: "
                 "'b' } } } "
                 "filters { exists { field { metadata_key: 'c' } } } }"));
}

TEST(FilterExpressionTest, ErrorsNameTheColumn) {
  EXPECT_THAT(Parsed(""), StartsWith("filter, column 1: the expression is empty"));
  EXPECT_THAT(Parsed("lang ="), StartsWith("filter, column 7: expected a value"));
  EXPECT_THAT(Parsed("lang = en"), StartsWith("filter, column 8: expected a value"));
  EXPECT_THAT(Parsed("lang 'en'"), StartsWith("filter, column 6: expected one of"));
  EXPECT_THAT(Parsed("a = 'b"), StartsWith("filter, column 5: this ' is never closed"));
  EXPECT_THAT(Parsed("a = 1 b = 2"), StartsWith("filter, column 7: expected 'and', 'or' or the end"));
  EXPECT_THAT(Parsed("(a = 1"), StartsWith("filter, column 7: expected ')'"));
  EXPECT_THAT(Parsed("a = 12x"), StartsWith("filter, column 5: '12x' is no number"));
  EXPECT_THAT(Parsed("a = 1e999"), StartsWith("filter, column 5: '1e999' is no number"));
  EXPECT_THAT(Parsed("a in ()"), StartsWith("filter, column 7: expected a value"));
  EXPECT_THAT(Parsed("a = time('soon')"), StartsWith("filter, column 10: 'soon' is no time"));
  EXPECT_THAT(Parsed("a & b"), StartsWith("filter, column 3: '&' has no meaning"));
  EXPECT_THAT(Parsed("and = 1"), StartsWith("filter, column 1: expected a field"));
  EXPECT_THAT(Parsed("exists a"), StartsWith("filter, column 8: expected '('"));
}

TEST(FilterExpressionTest, DepthAndSizeAreBounded) {
  const auto nested = [](size_t depth) { return std::string(depth - 1, '(') + "a = 1" + std::string(depth - 1, ')'); };
  EXPECT_TRUE(ParseFilterExpression(nested(kFilterDepthMax)).ok());
  EXPECT_THAT(Parsed(nested(kFilterDepthMax + 1)), HasSubstr("nested more than 16"));
  EXPECT_THAT(Parsed(std::string(1'000'000, '(')), HasSubstr("nested more than 16"));
  std::string nots;
  for (int i = 0; i < 100'000; ++i) nots += "not ";
  EXPECT_THAT(Parsed(nots), HasSubstr("nested more than 16"));
  std::string values = "a in (0";
  for (size_t i = 0; i < kFilterNodesMax; ++i) values += ",1";
  EXPECT_THAT(Parsed(values + ")"), HasSubstr("more than 4096"));
}

}  // namespace
}  // namespace retro::cli
