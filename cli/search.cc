// retro search: the nearest chunks of a text.
#include <memory>
#include <optional>
#include <string>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/message_json.h"
#include "cli/neighbour_view.h"
#include "cli/search_options.h"
#include "common/base/strings.h"
#include "fmt/format.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

constexpr uint32_t kNeighboursMax = 1000;
constexpr uint32_t kNeighboursShown = 5;  // without -k: more than a model takes, as many as fit on a screen

constexpr char kFooter[] = R"(
Examples:
  retro search "where are passwords kept"
  retro search "mount a disk" -k 20 --filter 'source = "handbook.html"' --max-per-document 1
  retro search "mount a disk" --json | jq -r .document_id

Distances are squared L2, smaller is nearer. With --json, one neighbour a line (retro.retriever.v1.Neighbour).)";

struct Options {
  CommonOptions common;
  SearchOptions search;
  std::string text;
  std::optional<uint32_t> max_per_document;
  std::string query_kind = "passage";
};

double Milliseconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(google::protobuf::util::TimeUtil::DurationToMicroseconds(duration)) / 1e3;
}

void PrintForPeople(const pb::SearchResponse& response, const Console& console) {
  const Style style = StyleFor(console.out_terminal);
  size_t rank = 0;
  for (const pb::QueryResult& result : response.results()) {
    for (const pb::Neighbour& neighbour : result.neighbours()) {
      console.out << NeighbourBlock(++rank, neighbour, style, console.width) << '\n';
    }
  }
  if (rank == 0)
    console.err << "nothing found: is anything stored (retro stats), and does the filter let it through?\n";
  const pb::Coverage& coverage = response.coverage();
  if (coverage.shards_answered() < coverage.shards_asked()) {
    console.err << fmt::format("only {} of {} shards answered\n", coverage.shards_answered(), coverage.shards_asked());
  }
  const pb::SearchTimes& times = response.times();
  console.err << fmt::format(
      "{} neighbours; ms: queue {:.1f}, embed {:.1f}, search {:.1f}, fetch {:.1f}, merge {:.1f}\n", rank,
      Milliseconds(times.queue()), Milliseconds(times.embed()), Milliseconds(times.search()),
      Milliseconds(times.fetch()), Milliseconds(times.merge()));
}

int RunSearch(const Options& options, const Console& console) {
  pb::SearchRequest request;
  request.set_collection(options.common.collection);
  request.set_k(kNeighboursShown);
  if (const absl::Status status = FillSearchOptions(options.search, &request); !status.ok()) {
    console.Error(MessageOf(status));
    return kUsage;
  }
  if (options.max_per_document) request.set_max_chunks_per_document(*options.max_per_document);
  pb::Query& query = *request.add_queries();
  query.set_text(options.text);
  query.set_text_kind(options.query_kind == "query" ? pb::TEXT_KIND_QUERY : pb::TEXT_KIND_PASSAGE);
  pb::SearchResponse response;
  Call call(options.common.timeout_s);
  const grpc::Status status = ConnectRetriever(options.common)->Search(call.context(), request, &response);
  if (!status.ok()) return ReportFailure(console, RetrieverPeer(options.common), status);
  if (!options.common.json) {
    PrintForPeople(response, console);
    return kOk;
  }
  for (const pb::QueryResult& result : response.results()) {
    for (const pb::Neighbour& neighbour : result.neighbours()) console.out << MessageToJson(neighbour) << '\n';
  }
  return kOk;
}

}  // namespace

void AddSearchCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("search", "Look for the chunks nearest to a text");
  command->footer(kFooter);
  command->add_option("text", options->text, "What to look for")->type_name("TEXT")->required();
  AddSearchOptions(*command, options->search, kNeighboursMax, "Neighbours, 1 to 1,000 (default 5)");
  command->add_option("--max-per-document", options->max_per_document, "At most so many chunks of one document")
      ->type_name("N")
      ->check(AboveZero());
  command
      ->add_option("--query-kind", options->query_kind,
                   "passage: a text like the stored ones; query: a question (matters to embedders with prefixes)")
      ->type_name("KIND")
      ->check(CLI::IsMember({"passage", "query"}))
      ->capture_default_str();
  AddCommonOptions(*command, options->common);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunSearch(*options, invocation.console); };
  });
}

}  // namespace retro::cli
