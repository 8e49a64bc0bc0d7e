// What search and generate let one say about neighbours, with the same words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/status.h"
#include "cli/filter_expression.h"
#include "common/base/status_macros.h"

namespace retro::cli {

struct SearchOptions {
  std::optional<uint32_t> k;
  std::optional<float> effort;
  bool exact = false;
  std::optional<float> max_distance;
  std::string filter;
  std::vector<std::string> exclude;
  bool allow_partial = false;
};

// Adds them; `options` must outlive the parse. `k_max` is the service's bound.
void AddSearchOptions(CLI::App& command, SearchOptions& options, uint32_t k_max, const std::string& k_help);

// Adds --filter, which explains itself.
void AddFilterOption(CLI::App& command, std::string& filter);

// Parses `expression` into message->mutable_filter(); leaves that unset for "". INVALID_ARGUMENT with the column.
template <typename Message>
absl::Status FillFilter(const std::string& expression, Message* message) {
  if (expression.empty()) return absl::OkStatus();
  RETRO_ASSIGN_OR_RETURN(*message->mutable_filter(), ParseFilterExpression(expression));
  return absl::OkStatus();
}

// Into a SearchRequest or a Retrieval, which name these fields alike.
template <typename Message>
absl::Status FillSearchOptions(const SearchOptions& options, Message* message) {
  if (options.k) message->set_k(*options.k);
  if (options.effort) message->mutable_effort()->set_level(*options.effort);
  if (options.exact) message->mutable_effort()->set_exact(true);
  if (options.max_distance) message->set_max_distance(*options.max_distance);
  for (const std::string& id : options.exclude) message->add_exclude_document_ids(id);
  if (options.allow_partial) message->set_allow_partial(true);
  return FillFilter(options.filter, message);
}

}  // namespace retro::cli
