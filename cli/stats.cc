// retro stats: what is stored where, and the state of its indexes.
#include <memory>
#include <string>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/message_json.h"
#include "fmt/format.h"

namespace retro::cli {
namespace {

constexpr char kFooter[] = R"(
Examples:
  retro stats
  retro stats --json | jq '.shards[].collections[].chunks'

With --json, one line (retro.retriever.v1.StatsResponse; 64-bit numbers are texts there).)";

std::string StateName(pb::IndexState state) {
  constexpr std::string_view kPrefix = "INDEX_STATE_";
  const std::string& name = pb::IndexState_Name(state);
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

void PrintCollection(const pb::ShardStats& shard, const pb::CollectionStats& stats, const Console& console) {
  const std::string recall = stats.has_measured_recall() ? fmt::format("{:.3f}", stats.measured_recall()) : "-";
  console.out << fmt::format("{:>5}  {:<20} {:>12} {:>12} {:>10}  {:<10} {:>6}\n", shard.shard(),
                             stats.collection().empty() ? "(default)" : OneLine(stats.collection()),
                             Grouped(stats.documents()), Grouped(stats.chunks()),
                             HumanBytes(static_cast<double>(stats.text_bytes())), StateName(stats.index_state()),
                             recall);
  for (const pb::SegmentStats& segment : stats.segments()) {
    console.out << fmt::format("         segment {}: {} vectors, {} deleted, {} of memory\n", OneLine(segment.kind()),
                               Grouped(segment.vectors()), Grouped(segment.deleted()),
                               HumanBytes(static_cast<double>(segment.memory_bytes())));
  }
}

void PrintTable(const pb::StatsResponse& response, const CommonOptions& options, const Console& console) {
  console.out << fmt::format("{:>5}  {:<20} {:>12} {:>12} {:>10}  {:<10} {:>6}\n", "shard", "collection", "documents",
                             "chunks", "text", "index", "recall");
  for (const pb::ShardStats& shard : response.shards()) {
    for (const pb::CollectionStats& stats : shard.collections()) {
      if (options.collection.empty() || options.collection == stats.collection())
        PrintCollection(shard, stats, console);
    }
    console.out << fmt::format("{:>5}  {} on disk, position {}.{}{}\n", shard.shard(),
                               HumanBytes(static_cast<double>(shard.disk_bytes())), shard.epoch(), shard.position(),
                               shard.read_only() ? ", READ ONLY: writes are refused" : "");
  }
  const pb::Coverage& coverage = response.coverage();
  if (coverage.shards_answered() < coverage.shards_asked()) {
    console.err << fmt::format("only {} of {} shards answered\n", coverage.shards_answered(), coverage.shards_asked());
  }
}

int RunStats(const CommonOptions& options, const Console& console) {
  pb::StatsResponse response;
  Call call(options.timeout_s);
  const grpc::Status status = ConnectRetriever(options)->Stats(call.context(), pb::StatsRequest(), &response);
  if (!status.ok()) return ReportFailure(console, RetrieverPeer(options), status);
  if (options.json) {
    console.out << MessageToJson(response) << '\n';
  } else {
    PrintTable(response, options, console);
  }
  return response.coverage().shards_answered() < response.coverage().shards_asked() ? kFailed : kOk;
}

}  // namespace

void AddStatsCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<CommonOptions>();
  CLI::App* command = app.add_subcommand("stats", "Show sizes and the state of the indexes");
  command->footer(kFooter);
  AddCommonOptions(*command, *options);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunStats(*options, invocation.console); };
  });
}

}  // namespace retro::cli
