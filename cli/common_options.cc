#include "cli/common_options.h"

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr double kTimeoutMin_s = 0.001;
constexpr double kTimeoutMax_s = 86400;

}  // namespace

void AddCommonOptions(CLI::App& command, CommonOptions& options, CommonOptionSet which) {
  constexpr char kGroup[] = "Common options";
  if (which.retriever) {
    command.add_option("--retriever", options.retriever, "Address of the retriever")
        ->envname("RETRO_RETRIEVER")
        ->type_name("ADDR")
        ->capture_default_str()
        ->group(kGroup);
  }
  if (which.generator) {
    command.add_option("--generator", options.generator, "Address of the generator")
        ->envname("RETRO_GENERATOR")
        ->type_name("ADDR")
        ->capture_default_str()
        ->group(kGroup);
  }
  if (which.collection) {
    command.add_option("--collection", options.collection, "Collection; without it, the default one")
        ->type_name("NAME")
        ->group(kGroup);
  }
  command.add_option("--timeout", options.timeout_s, "Longest wait for an answer in seconds")
      ->type_name("S")
      ->check(CLI::Range(kTimeoutMin_s, kTimeoutMax_s))
      ->capture_default_str()
      ->group(kGroup);
  command.add_flag("--json", options.json, "Print JSON, one object a line")->group(kGroup);
}

CLI::Validator AboveZero() {
  return {[](std::string& text) -> std::string {
            double value = 0;
            if (CLI::detail::lexical_cast(text, value) && value > 0) return "";
            return StrCat("must be a number above 0, is ", text);
          },
          "ABOVE 0"};
}

}  // namespace retro::cli
