#include "cli/common_options.h"

#include <istream>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/utf8.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr double kTimeoutMin_s = 0.001;
constexpr double kTimeoutMax_s = 86400;
constexpr size_t kTextBytesMax = 16 << 20;

// gRPC takes nearly everything for an address, a port of 99999 too.
CLI::Validator Address() {
  return {[](std::string& text) -> std::string {
            for (const std::string_view scheme : {"dns:", "unix:", "ipv4:", "ipv6:"}) {
              if (std::string_view(text).starts_with(scheme)) return "";
            }
            const size_t colon = text.rfind(':');
            int port = 0;
            const bool right = colon != std::string::npos && colon > 0 &&
                               CLI::detail::lexical_cast(text.substr(colon + 1), port) && port >= 1 && port <= 65535;
            return right ? "" : StrCat("'", text, "' is no address: write HOST:PORT, as 127.0.0.1:7700");
          },
          ""};
}

}  // namespace

void AddCommonOptions(CLI::App& command, CommonOptions& options, CommonOptionSet which) {
  constexpr char kGroup[] = "Common options";
  if (which.retriever) {
    command.add_option("--retriever", options.retriever, "Address of the retriever")
        ->envname("RETRO_RETRIEVER")
        ->type_name("ADDR")
        ->check(Address())
        ->capture_default_str()
        ->group(kGroup);
  }
  if (which.generator) {
    command.add_option("--generator", options.generator, "Address of the generator")
        ->envname("RETRO_GENERATOR")
        ->type_name("ADDR")
        ->check(Address())
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

void AddEncodingOptions(CLI::App& command, std::string& encoding, bool& repair) {
  command.add_option("--encoding", encoding, "Of all files, as latin-1 (default UTF-8, or what HTML says)")
      ->type_name("NAME");
  command.add_flag("--repair", repair, "Replace what is no character, instead of skipping the document");
}

void GroupOptions(CLI::App& command, const std::string& heading) {
  constexpr char kUngrouped[] = "Options";
  for (CLI::Option* option : command.get_options()) {
    const bool stays = option == command.get_help_ptr() || option->get_positional();
    if (!stays && option->get_group() == kUngrouped) option->group(heading);
  }
}

CLI::Validator AboveZero() {
  return {[](std::string& text) -> std::string {
            double value = 0;
            if (CLI::detail::lexical_cast(text, value) && value > 0) return "";
            return StrCat("must be a number above 0, is ", text);
          },
          "ABOVE 0"};
}

absl::StatusOr<std::string> TextArgument(const std::string& argument, std::string_view name, const Console& console) {
  std::string text = argument;
  if (text == "-") {
    text.resize(kTextBytesMax + 1);
    console.in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(console.in.gcount()));
    if (text.size() > kTextBytesMax) {
      return absl::InvalidArgumentError(StrCat("the ", name, " is longer than 16 MiB: shorten it"));
    }
    if (text.ends_with('\n')) text.pop_back();  // the file's, not the text's
  }
  if (text.empty()) return absl::InvalidArgumentError(StrCat("the ", name, " is empty: write something"));
  if (const size_t valid = ValidUtf8Prefix(text); valid != text.size()) {
    return absl::InvalidArgumentError(StrCat("the ", name, " is no UTF-8 at byte ", valid, ": convert it first"));
  }
  return text;
}

}  // namespace retro::cli
