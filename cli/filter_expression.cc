#include "cli/filter_expression.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "cli/filter_lexer.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

namespace pb = ::retro::retriever::v1;

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool IsReserved(const std::string& word) {
  const std::string lower = Lower(word);
  return lower == "and" || lower == "or" || lower == "not" || lower == "in" || lower == "between" ||
         lower == "exists" || lower == "time";
}

// Recursive descent, one method a rule. Its depth is bounded, so that no expression can exhaust the stack.
class Parser {
 public:
  explicit Parser(std::vector<FilterToken> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<pb::Filter> Parse() {
    RETRO_ASSIGN_OR_RETURN(pb::Filter filter, Or(1));
    if (Peek().kind != FilterToken::kEnd) return Unexpected("'and', 'or' or the end");
    return filter;
  }

 private:
  const FilterToken& Peek() const { return tokens_[at_]; }
  const FilterToken& Take() { return tokens_[Peek().kind == FilterToken::kEnd ? at_ : at_++]; }
  bool SeesWord(std::string_view word) const { return Peek().kind == FilterToken::kWord && Lower(Peek().text) == word; }
  bool SeesSymbol(std::string_view symbol) const {
    return Peek().kind == FilterToken::kSymbol && Peek().text == symbol;
  }
  bool TakeWord(std::string_view word) { return SeesWord(word) && (Take(), true); }
  bool TakeSymbol(std::string_view symbol) { return SeesSymbol(symbol) && (Take(), true); }

  absl::Status Unexpected(std::string_view wanted) const {
    const FilterToken& token = Peek();
    const std::string seen =
        token.kind == FilterToken::kEnd ? "the expression ends" : StrCat("there is '", token.text, "'");
    return FilterError(token.column, StrCat("expected ", wanted, ", but ", seen));
  }
  absl::Status ExpectSymbol(std::string_view symbol) {
    return TakeSymbol(symbol) ? absl::OkStatus() : Unexpected(StrCat("'", symbol, "'"));
  }
  absl::Status CountNode() {
    if (++nodes_ > kFilterNodesMax) {
      return FilterError(Peek().column, StrCat("more than ", kFilterNodesMax, " conditions and values"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<pb::Filter> Or(size_t depth) {
    RETRO_ASSIGN_OR_RETURN(pb::Filter first, And(depth));
    if (!SeesWord("or")) return first;
    pb::Filter filter;
    *filter.mutable_any_of()->add_filters() = std::move(first);
    while (TakeWord("or")) {
      RETRO_ASSIGN_OR_RETURN(*filter.mutable_any_of()->add_filters(), And(depth + 1));
    }
    return filter;
  }

  absl::StatusOr<pb::Filter> And(size_t depth) {
    RETRO_ASSIGN_OR_RETURN(pb::Filter first, Not(depth));
    if (!SeesWord("and")) return first;
    pb::Filter filter;
    *filter.mutable_all_of()->add_filters() = std::move(first);
    while (TakeWord("and")) {
      RETRO_ASSIGN_OR_RETURN(*filter.mutable_all_of()->add_filters(), Not(depth + 1));
    }
    return filter;
  }

  absl::StatusOr<pb::Filter> Not(size_t depth) {
    if (depth > kFilterDepthMax) {
      return FilterError(Peek().column, StrCat("nested more than ", kFilterDepthMax, " deep"));
    }
    RETRO_RETURN_IF_ERROR(CountNode());
    if (TakeWord("not")) {
      RETRO_ASSIGN_OR_RETURN(pb::Filter inner, Not(depth + 1));
      return Negated(std::move(inner));
    }
    if (TakeSymbol("(")) {
      RETRO_ASSIGN_OR_RETURN(pb::Filter inner, Or(depth + 1));
      RETRO_RETURN_IF_ERROR(ExpectSymbol(")"));
      return inner;
    }
    return Condition();
  }

  static pb::Filter Negated(pb::Filter inner) {
    pb::Filter filter;
    *filter.mutable_none_of()->add_filters() = std::move(inner);
    return filter;
  }

  absl::StatusOr<pb::Filter> Condition() {
    pb::Filter filter;
    if (TakeWord("exists")) {
      RETRO_RETURN_IF_ERROR(ExpectSymbol("("));
      RETRO_ASSIGN_OR_RETURN(*filter.mutable_exists()->mutable_field(), Field());
      RETRO_RETURN_IF_ERROR(ExpectSymbol(")"));
      return filter;
    }
    RETRO_ASSIGN_OR_RETURN(pb::FilterField field, Field());
    if (TakeWord("not")) {
      if (!SeesWord("in")) return Unexpected("'in'");
      RETRO_ASSIGN_OR_RETURN(pb::Filter inner, In(std::move(field)));
      return Negated(std::move(inner));
    }
    if (SeesWord("in")) return In(std::move(field));
    if (TakeWord("between")) return Between(std::move(field));
    return Comparison(std::move(field));
  }

  absl::StatusOr<pb::Filter> Comparison(pb::FilterField field) {
    pb::Filter filter;
    const std::string op = Peek().kind == FilterToken::kSymbol ? Peek().text : "";
    if (op.empty() || op == "(" || op == ")" || op == ",") {
      return Unexpected("one of = != < <= > >= in between");
    }
    Take();
    RETRO_ASSIGN_OR_RETURN(pb::MetadataValue value, Value());
    if (op == "=" || op == "!=") {
      *filter.mutable_equals()->mutable_field() = std::move(field);
      *filter.mutable_equals()->mutable_value() = std::move(value);
      return op == "=" ? filter : Negated(std::move(filter));
    }
    pb::RangeFilter& range = *filter.mutable_range();
    *range.mutable_field() = std::move(field);
    pb::MetadataValue& bound = op == "<"    ? *range.mutable_less_than()
                               : op == "<=" ? *range.mutable_at_most()
                               : op == ">"  ? *range.mutable_greater_than()
                                            : *range.mutable_at_least();
    bound = std::move(value);
    return filter;
  }

  absl::StatusOr<pb::Filter> In(pb::FilterField field) {
    Take();
    pb::Filter filter;
    *filter.mutable_in()->mutable_field() = std::move(field);
    RETRO_RETURN_IF_ERROR(ExpectSymbol("("));
    do {
      RETRO_ASSIGN_OR_RETURN(*filter.mutable_in()->add_values(), Value());
    } while (TakeSymbol(","));
    RETRO_RETURN_IF_ERROR(ExpectSymbol(")"));
    return filter;
  }

  absl::StatusOr<pb::Filter> Between(pb::FilterField field) {
    pb::Filter filter;
    *filter.mutable_range()->mutable_field() = std::move(field);
    RETRO_ASSIGN_OR_RETURN(*filter.mutable_range()->mutable_at_least(), Value());
    if (!TakeWord("and")) return Unexpected("'and'");
    RETRO_ASSIGN_OR_RETURN(*filter.mutable_range()->mutable_at_most(), Value());
    return filter;
  }

  absl::StatusOr<pb::FilterField> Field() {
    pb::FilterField field;
    const FilterToken& token = Peek();
    const bool quoted = token.kind == FilterToken::kQuotedField && !token.text.empty();
    if (!quoted && (token.kind != FilterToken::kWord || IsReserved(token.text))) {
      return Unexpected("a field (a word, or any key in `backquotes`)");
    }
    if (!quoted && token.text == "id") {
      field.set_builtin(pb::BUILTIN_FIELD_ID);
    } else if (!quoted && token.text == "source") {
      field.set_builtin(pb::BUILTIN_FIELD_SOURCE);
    } else {
      field.set_metadata_key(token.text);
    }
    Take();
    return field;
  }

  absl::StatusOr<pb::MetadataValue> Value() {
    RETRO_RETURN_IF_ERROR(CountNode());
    if (SeesWord("time")) return Time();
    pb::MetadataValue value;
    const FilterToken& token = Peek();
    if (token.kind == FilterToken::kText) {
      value.set_string_value(token.text);
    } else if (token.kind == FilterToken::kNumber) {
      RETRO_RETURN_IF_ERROR(SetNumber(token, &value));
    } else {
      return Unexpected("a value (\"text\" in quotes, a number, or time(\"...\"))");
    }
    Take();
    return value;
  }

  static absl::Status SetNumber(const FilterToken& token, pb::MetadataValue* value) {
    // from_chars takes no plus sign.
    const char* const begin = token.text.data() + (token.text.front() == '+' ? 1 : 0);
    const char* const end = token.text.data() + token.text.size();
    int64_t whole = 0;
    if (const auto [at, error] = std::from_chars(begin, end, whole); error == std::errc() && at == end) {
      value->set_int_value(whole);
      return absl::OkStatus();
    }
    double number = 0;
    const auto [at, error] = std::from_chars(begin, end, number);
    if (error != std::errc() || at != end || !std::isfinite(number)) {
      return FilterError(token.column, StrCat("'", token.text, "' is no number"));
    }
    value->set_number_value(number);
    return absl::OkStatus();
  }

  absl::StatusOr<pb::MetadataValue> Time() {
    Take();
    RETRO_RETURN_IF_ERROR(ExpectSymbol("("));
    const FilterToken token = Peek();
    if (token.kind != FilterToken::kText) return Unexpected("a time in quotes");
    Take();
    const std::string text = token.text.find('T') == std::string::npos ? token.text + "T00:00:00Z" : token.text;
    pb::MetadataValue value;
    if (!google::protobuf::util::TimeUtil::FromString(text, value.mutable_time_value())) {
      return FilterError(token.column, StrCat("'", token.text, "' is no time as 2024-05-01 or 2024-05-01T12:00:00Z"));
    }
    RETRO_RETURN_IF_ERROR(ExpectSymbol(")"));
    return value;
  }

  std::vector<FilterToken> tokens_;  // the last is kEnd
  size_t at_ = 0;
  size_t nodes_ = 0;
};

}  // namespace

absl::StatusOr<pb::Filter> ParseFilterExpression(std::string_view expression) {
  RETRO_ASSIGN_OR_RETURN(std::vector<FilterToken> tokens, CutFilterTokens(expression));
  if (tokens.size() == 1) return FilterError(1, "the expression is empty");
  return Parser(std::move(tokens)).Parse();
}

}  // namespace retro::cli
