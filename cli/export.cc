// retro export: all documents as JSONL.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/document_json.h"
#include "cli/document_pages.h"
#include "cli/exit_code.h"
#include "cli/progress.h"
#include "cli/search_options.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr char kFooter[] = R"(
Examples:
  retro export --out documents.jsonl
  retro export --filter 'lang = "en"' | gzip > english.jsonl.gz
  retro ingest documents.jsonl                   and back in

The file appears when it is whole; until then it is FILE.partial. Documents written or deleted meanwhile may be missing.)";

struct Options {
  CommonOptions common;
  std::string filter;
  std::string out;
  bool quiet = false;
};

class ExportRun {
 public:
  ExportRun(const Options& options, const Console& console)
      : options_(options),
        console_(console),
        stub_(ConnectRetriever(options.common)),
        progress_(console, options.quiet || (console.out_terminal && options.out.empty())) {}

  int Run() {
    pb::ListDocumentsRequest parsed;
    if (const absl::Status status = FillFilter(options_.filter, &parsed); !status.ok()) {
      console_.Error(MessageOf(status));
      return kUsage;
    }
    std::optional<pb::Filter> filter;
    if (parsed.has_filter()) filter = parsed.filter();
    if (options_.out.empty()) return WriteAll(filter, console_.out, "standard output");
    // A device or a pipe is written to, and never replaced.
    std::error_code ignored;
    const std::filesystem::file_status there = std::filesystem::status(options_.out, ignored);
    const bool in_place = std::filesystem::exists(there) && !std::filesystem::is_regular_file(there);
    const std::string partial = in_place ? options_.out : options_.out + ".partial";
    std::ofstream file(partial, std::ios::binary | std::ios::trunc);
    if (!file) {
      console_.Error(StrCat("cannot write ", partial, ": name a place where you may write"));
      return kFailed;
    }
    const int code = WriteAll(filter, file, partial);
    file.close();
    if (code == kOk && !in_place && std::rename(partial.c_str(), options_.out.c_str()) != 0) {
      console_.Error(StrCat("cannot rename ", partial, " to ", options_.out));
      return kFailed;
    }
    return code;
  }

 private:
  int WriteAll(const std::optional<pb::Filter>& filter, std::ostream& out, std::string_view out_name) {
    DocumentPages pages(*stub_, options_.common, filter);
    ProgressState state;
    state.items_name = "documents";
    if (!filter.has_value()) state.items_total = CountDocuments();
    while (const pb::DocumentSummary* summary = pages.Next()) {
      pb::GetDocumentResponse response;
      const grpc::Status status = Get(summary->document().id(), &response);
      if (status.error_code() == grpc::StatusCode::NOT_FOUND) continue;  // deleted since it was listed
      if (!status.ok()) return Fail(status, state.items);
      out << DocumentToJson(response.document()) << '\n';
      if (!out) break;
      ++state.items;
      state.bytes += response.document().text().size();
      progress_.Show(state);
    }
    out.flush();
    if (!out) {
      progress_.Clear();
      console_.Error(StrCat("cannot write ", out_name, ": is the disk full, or the reader gone?"));
      return kFailed;
    }
    if (!pages.status().ok()) return Fail(pages.status(), state.items);
    progress_.Clear();
    if (!options_.quiet) console_.err << Grouped(state.items) << " documents exported\n";
    return kOk;
  }

  // For the time left alone: 0 if it cannot be told.
  uint64_t CountDocuments() {
    pb::StatsResponse response;
    Call call(options_.common.timeout_s);
    uint64_t count = 0;
    if (!stub_->Stats(call.context(), pb::StatsRequest(), &response).ok()) return count;
    for (const pb::ShardStats& shard : response.shards()) {
      for (const pb::CollectionStats& stats : shard.collections()) {
        if (stats.collection() == options_.common.collection) count += stats.documents();
      }
    }
    return count;
  }

  grpc::Status Get(const std::string& id, pb::GetDocumentResponse* response) {
    pb::GetDocumentRequest request;
    request.set_collection(options_.common.collection);
    request.set_document_id(id);
    Call call(options_.common.timeout_s);
    return stub_->GetDocument(call.context(), request, response);
  }

  int Fail(const grpc::Status& status, uint64_t done) {
    progress_.Clear();
    const int code = ReportFailure(console_, RetrieverPeer(options_.common), status);
    if (done > 0) console_.Error(StrCat(done, " documents were written before that: the export is not whole"));
    return code;
  }

  const Options& options_;
  const Console& console_;
  const std::unique_ptr<pb::RetrieverService::Stub> stub_;
  Progress progress_;
};

}  // namespace

void AddExportCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("export", "Write all documents as JSONL, which ingest takes again");
  command->footer(kFooter);
  command->add_option("--out,-o", options->out, "File to write; without it, standard output")->type_name("FILE");
  AddFilterOption(*command, options->filter);
  command->add_flag("--quiet,-q", options->quiet, "No progress");
  AddCommonOptions(*command, options->common);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return ExportRun(*options, invocation.console).Run(); };
  });
}

}  // namespace retro::cli
