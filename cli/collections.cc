// retro collections: documents kept apart, each collection with an index of its own.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <istream>
#include <memory>
#include <string>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/action.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/message_json.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "fmt/format.h"

namespace retro::cli {
namespace {

using Stub = pb::RetrieverService::Stub;

constexpr size_t kFingerprintDigits = 16;  // enough to tell two apart

constexpr char kFooter[] = R"(
Examples:
  retro collections list
  retro collections create news         with the retriever's tokenizer and embedder; OK if it is there
  retro ingest --collection news articles/
  retro collections delete news         with all that is in it; asks first, --yes does not

Names are 1 to 128 of a-z, 0-9, '-' and '_'. The default collection has no name, and is always there.
A create or delete that failed may have been carried out on some shards: repeat it.
With --json, one line with the reply's message.)";

struct Options {
  CommonOptions common;
  std::string name;
  bool yes = false;
};

template <typename Request, typename Response>
int Ask(const Options& options, const Console& console, const Request& request,
        grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
        const std::function<void(const Response&)>& print) {
  Response response;
  Call call(options.common.timeout_s);
  const grpc::Status status = ((*ConnectRetriever(options.common)).*method)(call.context(), request, &response);
  if (!status.ok()) return ReportFailure(console, RetrieverPeer(options.common), status);
  print(response);
  return kOk;
}

template <typename Response>
void Print(const Options& options, const Console& console, const Response& response, const std::string& otherwise) {
  console.out << (options.common.json ? MessageToJson(response) : otherwise) << '\n';
}

int RunList(const Options& options, const Console& console) {
  return Ask<pb::ListCollectionsRequest, pb::ListCollectionsResponse>(
      options, console, {}, &Stub::ListCollections, [&](const pb::ListCollectionsResponse& response) {
        std::string table =
            fmt::format("{:<24} {:>9} {:>6}  {:<16}  {}", "collection", "dimension", "chunk", "embedder", "tokenizer");
        for (const pb::CollectionSpec& spec : response.collections()) {
          table += fmt::format("\n{:<24} {:>9} {:>6}  {:<16}  {}",
                               spec.name().empty() ? "(default)" : OneLine(spec.name()), spec.dimension(),
                               spec.chunk_size(), HexEncode(spec.embedder_fingerprint()).substr(0, kFingerprintDigits),
                               HexEncode(spec.tokenizer_fingerprint()).substr(0, kFingerprintDigits));
        }
        Print(options, console, response, table);
      });
}

int RunCreate(const Options& options, const Console& console) {
  pb::CreateCollectionRequest request;
  request.mutable_spec()->set_name(options.name);
  return Ask<pb::CreateCollectionRequest, pb::CreateCollectionResponse>(
      options, console, request, &Stub::CreateCollection, [&](const pb::CreateCollectionResponse& response) {
        Print(options, console, response, StrCat("collection ", OneLine(options.name), " is there"));
      });
}

uint64_t DocumentsIn(const pb::StatsResponse& stats, const std::string& collection) {
  uint64_t documents = 0;
  for (const pb::ShardStats& shard : stats.shards()) {
    for (const pb::CollectionStats& one : shard.collections()) {
      if (one.collection() == collection) documents += one.documents();
    }
  }
  return documents;
}

// kOk if that was said.
int Confirm(const Options& options, const Console& console) {
  if (options.yes) return kOk;
  if (!console.in_terminal) {
    console.Error("deleting a collection asks first, but standard input is no terminal: add --yes");
    return kUsage;
  }
  uint64_t documents = 0;
  const int code = Ask<pb::StatsRequest, pb::StatsResponse>(
      options, console, {}, &Stub::Stats,
      [&](const pb::StatsResponse& stats) { documents = DocumentsIn(stats, options.name); });
  if (code != kOk) return code;
  console.err << "Delete collection " << OneLine(options.name) << " with its " << Grouped(documents)
              << " documents? [y/N] " << std::flush;
  std::string answer;
  std::getline(console.in, answer);
  if (answer == "y" || answer == "Y" || answer == "yes") return kOk;
  console.err << "nothing deleted\n";
  return kFailed;
}

int RunDelete(const Options& options, const Console& console) {
  if (const int code = Confirm(options, console); code != kOk) return code;
  pb::DeleteCollectionRequest request;
  request.set_name(options.name);
  return Ask<pb::DeleteCollectionRequest, pb::DeleteCollectionResponse>(
      options, console, request, &Stub::DeleteCollection, [&](const pb::DeleteCollectionResponse& response) {
        Print(options, console, response, StrCat("collection ", OneLine(options.name), " deleted"));
      });
}

}  // namespace

void AddCollectionsCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("collections", "List, create and delete collections");
  command->require_subcommand(1);
  AddAction(*command, options, invocation, "list", "Show the collections", RunList);
  CLI::App* create = AddAction(*command, options, invocation, "create", "Make a collection", RunCreate);
  create->add_option("name", options->name, "Its name")->required();
  CLI::App* remove =
      AddAction(*command, options, invocation, "delete", "Delete a collection and its documents", RunDelete);
  remove->add_option("name", options->name, "As listed")->required();
  remove->add_flag("--yes,-y", options->yes, "Do not ask");
  command->footer(kFooter);  // last: subcommands would inherit it
}

}  // namespace retro::cli
