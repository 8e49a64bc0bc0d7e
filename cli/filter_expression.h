// Filters as people write them:
//
//   lang = "en" and year >= 2020 and not source in ("a", "b") and exists(tag)
//
//   EXPR   := EXPR or EXPR | EXPR and EXPR | not EXPR | (EXPR) | exists(FIELD)
//           | FIELD OP VALUE | FIELD [not] in (VALUE, ...) | FIELD between VALUE and VALUE
//   OP     := = | != | < | <= | > | >=            (== is =)
//   FIELD  := id | source | a metadata key, in `backquotes` if it is no plain word, or is a word of this language
//   VALUE  := "text" or 'text' (with \" \' \\ \n \t) | 12 | -1.5e3 | time("2024-05-01T12:00:00Z") | time("2024-05-01")
//
// `and` binds closer than `or`, `not` closest; words in any case. `!=` is true of documents without the field.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "retro/retriever/v1/filter.pb.h"

namespace retro::cli {

inline constexpr size_t kFilterDepthMax = 16;  // the server's bounds, see Filter
inline constexpr size_t kFilterNodesMax = 4096;

// INVALID_ARGUMENT, with the column (from 1) at which the expression stops making sense.
absl::StatusOr<::retro::retriever::v1::Filter> ParseFilterExpression(std::string_view expression);

}  // namespace retro::cli
