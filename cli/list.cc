// retro list: what is stored.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/document_pages.h"
#include "cli/exit_code.h"
#include "cli/message_json.h"
#include "cli/search_options.h"
#include "common/base/strings.h"
#include "fmt/format.h"

namespace retro::cli {
namespace {

constexpr char kFooter[] = R"(
Examples:
  retro list
  retro list --filter 'year >= 2020' --limit 0         all of them
  retro list --json | jq -r .document.id

With --json, one document a line (retro.retriever.v1.DocumentSummary).)";

struct Options {
  CommonOptions common;
  std::string filter;
  uint64_t limit = 100;
};

void PrintSummary(const pb::DocumentSummary& summary, const Options& options, const Console& console) {
  if (options.common.json) {
    console.out << MessageToJson(summary) << '\n';
    return;
  }
  const pb::Document& document = summary.document();
  console.out << fmt::format("{:>8} {:>10}  {}", Grouped(summary.info().chunk_count()),
                             HumanBytes(static_cast<double>(summary.info().text_bytes())), OneLine(document.id()));
  if (!document.title().empty()) console.out << "  " << OneLine(document.title());
  console.out << '\n';
}

int RunList(const Options& options, const Console& console) {
  pb::ListDocumentsRequest request;
  if (const absl::Status status = FillFilter(options.filter, &request); !status.ok()) {
    console.Error(MessageOf(status));
    return kUsage;
  }
  std::optional<pb::Filter> filter;
  if (request.has_filter()) filter = request.filter();
  const auto stub = ConnectRetriever(options.common);
  DocumentPages pages(*stub, options.common, filter);
  uint64_t shown = 0;
  while (const pb::DocumentSummary* summary = pages.Next()) {
    if (options.limit > 0 && shown == options.limit) {
      console.err << "more documents follow: see all with --limit 0\n";
      return kOk;
    }
    if (shown++ == 0 && !options.common.json) console.out << fmt::format("{:>8} {:>10}  id  title\n", "chunks", "text");
    PrintSummary(*summary, options, console);
  }
  if (!pages.status().ok()) return ReportFailure(console, RetrieverPeer(options.common), pages.status());
  if (shown == 0 && !options.common.json) console.err << "no documents\n";
  return kOk;
}

}  // namespace

void AddListCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("list", "List documents");
  command->footer(kFooter);
  AddFilterOption(*command, options->filter);
  command->add_option("--limit", options->limit, "At most so many; 0 for all")
      ->type_name("N")
      ->check(CLI::Range(uint64_t{0}, uint64_t{1} << 53))
      ->capture_default_str();
  AddCommonOptions(*command, options->common);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunList(*options, invocation.console); };
  });
}

}  // namespace retro::cli
