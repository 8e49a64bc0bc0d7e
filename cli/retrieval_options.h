// What generate and score let one say about retrieval, with the same words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "CLI/App.hpp"
#include "absl/status/status.h"
#include "cli/protocol.h"
#include "cli/search_options.h"

namespace retro::cli {

struct RetrievalOptions {
  bool off = false;
  SearchOptions search;
  std::optional<double> lookup_timeout_s;
  std::optional<float> gate;
  bool go_on_without = false;
  std::string alignment;
  std::optional<uint32_t> offset;
};

// Adds them; `options` must outlive the parse. `end` is what --alignment's default aligns chunks to: "prompt". Returns
// --no-retrieval, for others to exclude.
CLI::Option* AddRetrievalOptions(CLI::App& command, RetrievalOptions& options, const std::string& end);

// INVALID_ARGUMENT for a filter that cannot be read.
absl::Status FillRetrieval(const RetrievalOptions& options, const std::string& collection, gen::Retrieval* retrieval);

}  // namespace retro::cli
