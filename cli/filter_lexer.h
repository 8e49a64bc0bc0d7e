// The words of a filter expression; see filter_expression.h.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace retro::cli {

struct FilterToken {
  enum Kind { kWord, kQuotedField, kText, kNumber, kSymbol, kEnd };
  Kind kind = kEnd;
  std::string text;   // without quotes and escapes; symbols as written, "==" as "="
  size_t column = 0;  // from 1
};

// The tokens of an expression, a kEnd last. INVALID_ARGUMENT with the column.
absl::StatusOr<std::vector<FilterToken>> CutFilterTokens(std::string_view expression);

// The error that all parts of the parser give.
absl::Status FilterError(size_t column, std::string_view message);

}  // namespace retro::cli
