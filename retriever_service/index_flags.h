// The index's settings on the command line, alike for all programs that hold a shard.
#pragma once

#include <CLI/CLI.hpp>

#include "retriever_service/index/index_settings.h"

namespace retro {

// `settings` must outlive the parsing.
void AddIndexFlags(CLI::App& app, IndexSettings& settings);

}  // namespace retro
