#include "cli/retrieval_options.h"

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "common/base/strings.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

constexpr uint32_t kNeighboursMax = 64;

}  // namespace

CLI::Option* AddRetrievalOptions(CLI::App& command, RetrievalOptions& options, const std::string& end) {
  CLI::Option* const off = command.add_flag("--no-retrieval", options.off, "A plain language model");
  AddSearchOptions(command, options.search, kNeighboursMax,
                   "Neighbours a chunk, 1 to 64 (default: as the model was trained)");
  command.add_option("--lookup-timeout", options.lookup_timeout_s, "Longest look-up in seconds (default 2)")
      ->type_name("S")
      ->check(CLI::Range(0.001, 60.0));
  command.add_flag("--go-on-without", options.go_on_without,
                   "When a look-up fails, go on without neighbours and say so");
  command.add_option("--gate", options.gate, "Scale of the chunked cross-attention (default: the model's)")
      ->type_name("G");
  command
      .add_option("--alignment", options.alignment,
                  StrCat("end-of-", end, ": the ", end,
                         " ends on a chunk's border (default); paper: chunks count from the first token"))
      ->type_name("WHERE")
      ->check(CLI::IsMember({StrCat("end-of-", end), std::string("paper")}));
  command.add_option("--offset", options.offset, "Tokens of the first chunk; overrides --alignment")->type_name("N");
  return off;
}

absl::Status FillRetrieval(const RetrievalOptions& options, const std::string& collection, gen::Retrieval* retrieval) {
  if (options.off) retrieval->set_enabled(false);
  retrieval->set_collection(collection);
  if (options.lookup_timeout_s) {
    *retrieval->mutable_timeout() =
        google::protobuf::util::TimeUtil::MicrosecondsToDuration(static_cast<int64_t>(*options.lookup_timeout_s * 1e6));
  }
  if (options.gate) retrieval->set_gate(*options.gate);
  if (options.go_on_without) retrieval->set_on_failure(gen::FAILURE_POLICY_GO_ON_WITHOUT);
  if (!options.alignment.empty()) {
    retrieval->set_alignment(options.alignment == "paper" ? gen::ALIGNMENT_PAPER : gen::ALIGNMENT_END_OF_PROMPT);
  }
  if (options.offset) retrieval->set_offset(*options.offset);
  return FillSearchOptions(options.search, retrieval);
}

}  // namespace retro::cli
