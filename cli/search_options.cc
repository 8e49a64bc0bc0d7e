#include "cli/search_options.h"

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/common_options.h"

namespace retro::cli {

void AddSearchOptions(CLI::App& command, SearchOptions& options, uint32_t k_max, const std::string& k_help) {
  command.add_option("-k,--k", options.k, k_help)->type_name("N")->check(CLI::Range(uint32_t{1}, k_max));
  CLI::Option* const effort =
      command.add_option("--effort", options.effort, "How hard the index tries, 0 to 1 (default 0.5)")
          ->type_name("E")
          ->check(CLI::Range(0.0, 1.0));
  command.add_flag("--exact", options.exact, "Compare every chunk")->excludes(effort);
  command.add_option("--max-distance", options.max_distance, "Leave out what is farther; squared L2")
      ->type_name("D")
      ->check(AboveZero());
  AddFilterOption(command, options.filter);
  command.add_option("--exclude", options.exclude, "Leave out this document; repeatable")
      ->type_name("ID")
      ->allow_extra_args(false);
  command.add_flag("--allow-partial", options.allow_partial, "Be content with the shards that answer");
}

void AddFilterOption(CLI::App& command, std::string& filter) {
  command
      .add_option("--filter", filter,
                  "Only documents with, as 'lang = \"en\" and year >= 2020 and not source in (\"a\", \"b\") and "
                  "exists(tag)'; fields are id, source and metadata keys")
      ->type_name("EXPR");
}

}  // namespace retro::cli
