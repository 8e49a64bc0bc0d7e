// retro ingest: files and folders into the store.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/document_reader.h"
#include "cli/exit_code.h"
#include "cli/file_walk.h"
#include "cli/ingest_journal.h"
#include "cli/ingest_ledger.h"
#include "cli/ingest_stream.h"
#include "cli/progress.h"
#include "cli/reading_options.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

constexpr char kFooter[] = R"(
Examples:
  retro ingest handbook/                             every known file in a folder and below
  retro ingest a.txt.gz b.html dump.jsonl.zst        files by name
  retro ingest docs --metadata lang=en --metadata year:=2024
  retro ingest big.jsonl.gz --resume-file big.resume  killed? The same command goes on where it was
  zcat wiki.gz | retro ingest -                      JSONL from standard input

Files: .txt .md .markdown .html .htm .jsonl, each also .gz or .zst. In folders, hidden files, symbolic links and other
names are passed over; what is named on the command line is taken, also through a link.
JSONL: {"id": "a", "text": "...", "title": "...", "source": "...", "metadata": {"lang": "en", "year": 2024}} a line; only
text is needed, other fields become metadata, "vectors" with "embedder_fingerprint" saves the server the embedding.
Ids: a file's path as named, "path#1", "path#2", ... for the parts of a long one, "path:LINE" for JSONL without ids. So
start from the same folder each time. Running again is cheap: what has not changed is not written or embedded again.
Parts have the metadata retro.part_of; when a text is cut otherwise than before, its old parts are deleted.
What cannot be read is reported in a line each and skipped; the exit code is then 1, and the rest is in.)";

struct Options {
  CommonOptions common;
  std::vector<std::string> paths;
  ReadingOptions reading;
  std::string resume_file;
  int retries = Retries().max;
  size_t window = IngestOptions().window_documents_max;
  bool quiet = false;
};

struct Counts {
  uint64_t created = 0, replaced = 0, unchanged = 0, failed = 0, skipped = 0;
  uint64_t chunks = 0, retries = 0;
  uint64_t answered() const { return created + replaced + unchanged + failed; }
};

// One run of the command.
class IngestRun {
 public:
  IngestRun(const Options& options, const Console& console)
      : options_(options),
        console_(console),
        stub_(ConnectRetriever(options.common)),
        progress_(console, options.quiet) {}

  int Run() {
    pb::GetInfoResponse info;
    Call call(options_.common.timeout_s);
    const grpc::Status reached = stub_->GetInfo(call.context(), pb::GetInfoRequest(), &info);
    if (!reached.ok()) return ReportFailure(console_, RetrieverPeer(options_.common), reached);
    if (const absl::Status status = OpenJournal(info); !status.ok()) {
      console_.Error(MessageOf(status));
      return kUsage;
    }
    CollectFiles();
    IngestOptions stream_options;
    stream_options.collection = options_.common.collection;
    stream_options.retries.max = options_.retries;
    stream_options.window_documents_max = options_.window;
    stream_options.silence_max = std::chrono::milliseconds(
        std::max<int64_t>(1, static_cast<int64_t>(options_.common.timeout_s * kSilencePerTimeout * 1e3)));
    ledger_.emplace(*stub_, options_.common, stream_options.retries, files_, journal_.get());
    stream_.emplace(*stub_, stream_options);
    grpc::Status status = SendEverything();
    if (status.ok()) status = stream_->Finish();
    if (!status.ok()) ledger_->TryNothingAgain();
    TakeAcknowledgements();
    ledger_->Settle(/*now=*/true);
    return Conclude(status);
  }

 private:
  // A stream may be silent for longer than a single answer may take: a full window of long documents is embedded.
  static constexpr double kSilencePerTimeout = 5;

  absl::Status OpenJournal(const pb::GetInfoResponse& info) {
    if (options_.resume_file.empty()) return absl::OkStatus();
    const std::string target =
        StrCat(HexEncode(info.store_id()), "/", options_.common.collection, "/part-bytes=", options_.reading.part_bytes,
               "/encoding=", options_.reading.reader.encoding, "/repair=", options_.reading.reader.repair ? 1 : 0,
               "/metadata=", fmt::format("{}", fmt::join(options_.reading.metadata, ",")));
    RETRO_ASSIGN_OR_RETURN(journal_, IngestJournal::Open(options_.resume_file, target));
    return absl::OkStatus();
  }

  void CollectFiles() {
    std::vector<std::string> paths = options_.paths;
    const auto is_stream = [](const std::string& path) { return path == "-"; };
    if (std::any_of(paths.begin(), paths.end(), is_stream)) reads_stdin_ = true;
    std::erase_if(paths, is_stream);
    WalkResult walked = WalkFiles(paths, options_.reading.walk);
    files_ = std::move(walked.files);
    for (const absl::Status& problem : walked.problems) Skip(problem);
    for (const InputFile& file : files_) bytes_total_ += file.size_bytes;
  }

  grpc::Status SendEverything() {
    for (size_t i = 0; i < files_.size(); ++i) {
      const uint64_t skip_to = journal_ == nullptr ? 0 : journal_->DoneOf(files_[i]);
      const std::unique_ptr<DocumentReader> reader = OpenDocumentReader(files_[i], options_.reading.reader);
      reader->SkipTo(skip_to);
      resumed_files_ += skip_to > 0 ? 1 : 0;
      if (grpc::Status status = SendFile(i, *reader); !status.ok()) return status;
      bytes_finished_ += files_[i].size_bytes;
    }
    if (!reads_stdin_) return grpc::Status::OK;
    return SendFile(files_.size(), *JsonlStreamReader(console_.in, options_.reading.reader));
  }

  grpc::Status SendFile(size_t number, DocumentReader& reader) {
    while (std::optional<Reading> reading = reader.Next()) {
      if (Interrupted()) return {grpc::StatusCode::CANCELLED, "interrupted"};
      if (!reading->problem.ok()) {
        Skip(reading->problem);
        continue;
      }
      IngestTag tag = {number, reading->ordinal, reading->last_of_ordinal, std::move(reading->part)};
      ledger_->Begin(tag);
      if (grpc::Status status = stream_->Send(std::move(reading->write), std::move(tag)); !status.ok()) return status;
      TakeAcknowledgements();
      ShowProgress(bytes_finished_ + reader.consumed_bytes());
    }
    return grpc::Status::OK;
  }

  void TakeAcknowledgements() {
    for (const IngestAcknowledgement& one : stream_->TakeAcknowledgements()) Count(one);
    ledger_->Settle(/*now=*/false);
  }

  void Count(const IngestAcknowledgement& one) {
    const pb::DocumentResult& result = one.result;
    counts_.retries += static_cast<uint64_t>(one.retries);
    if (result.has_error()) {
      ReportFailed(result, one.retries);
      ledger_->OnFailed(one.tag);
      return;
    }
    ledger_->OnStored(one.tag);
    counts_.created += result.outcome() == pb::WRITE_OUTCOME_CREATED ? 1 : 0;
    counts_.replaced += result.outcome() == pb::WRITE_OUTCOME_REPLACED ? 1 : 0;
    counts_.unchanged += result.outcome() == pb::WRITE_OUTCOME_UNCHANGED ? 1 : 0;
    counts_.chunks += result.chunk_count();
  }

  void ReportFailed(const pb::DocumentResult& result, int retries) {
    ++counts_.failed;
    progress_.Clear();
    const pb::ItemError& error = result.error();
    if (options_.common.json) {
      PrintJson({{"event", "failed"},
                 {"id", result.document_id()},
                 {"message", error.message()},
                 {"reason", error.reason()},
                 {"field", error.field()},
                 {"retries", retries}});
      return;
    }
    std::string line = StrCat("failed: ", result.document_id(), ": ", error.message());
    if (!error.reason().empty()) line += StrCat(" (reason ", error.reason());
    if (!error.reason().empty()) line += error.field().empty() ? ")" : StrCat(", field ", error.field(), ")");
    if (retries > 0) line += StrCat("; tried ", retries + 1, " times: run the same command again later");
    console_.Error(line);
  }

  void Skip(const absl::Status& problem) {
    ++counts_.skipped;
    progress_.Clear();
    if (options_.common.json) {
      PrintJson({{"event", "skipped"}, {"message", std::string(MessageOf(problem))}});
    } else {
      console_.Error(StrCat("skipped: ", MessageOf(problem)));
    }
  }

  void PrintJson(const nlohmann::ordered_json& json) {
    console_.out << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << std::endl;
  }

  void ShowProgress(uint64_t bytes) {
    ProgressState state;
    state.items = counts_.answered();
    state.items_name = "documents";
    state.chunks = counts_.chunks;
    state.bytes = bytes;
    state.bytes_total = reads_stdin_ ? 0 : bytes_total_;
    progress_.Show(state);
  }

  int Conclude(const grpc::Status& status) {
    progress_.Clear();
    absl::Status journal_status = journal_ == nullptr ? absl::OkStatus() : journal_->Flush();
    if (!journal_status.ok()) console_.Error(MessageOf(journal_status));
    const grpc::Status& swept = ledger_->sweep_status();
    int code = counts_.failed + counts_.skipped > 0 || !journal_status.ok() || !swept.ok() ? kFailed : kOk;
    const bool interrupted = Interrupted() && !(status.ok() && swept.ok());
    if (status.ok() && !swept.ok()) {
      console_.Error(StrCat("old parts of documents that have been cut otherwise may still be stored: run the same ",
                            "command again; ",
                            interrupted ? "interrupted" : DescribeFailure(RetrieverPeer(options_.common), swept)));
      if (interrupted) code = kInterrupted;
    }
    if (!status.ok()) {
      code = ReportFailure(console_, RetrieverPeer(options_.common), status);
      console_.Error(StrCat(stream_->unacknowledged_count(),
                            " documents were sent and not acknowledged, the rest was not "
                            "sent: run the same command again, what is stored costs nothing then"));
    }
    PrintSummary(status.ok() && !interrupted);
    return code;
  }

  void PrintSummary(bool complete) {
    const double seconds = progress_.seconds();
    if (options_.common.json) {
      PrintJson({{"event", "summary"},
                 {"complete", complete},
                 {"created", counts_.created},
                 {"replaced", counts_.replaced},
                 {"unchanged", counts_.unchanged},
                 {"failed", counts_.failed},
                 {"skipped", counts_.skipped},
                 {"old_parts_deleted", ledger_->deleted_count()},
                 {"chunks", counts_.chunks},
                 {"resumed_files", resumed_files_},
                 {"reconnects", stream_->reconnect_count()},
                 {"retries", counts_.retries},
                 {"seconds", seconds}});
      return;
    }
    if (resumed_files_ > 0 && !options_.quiet) {
      console_.err << "went on in " << Grouped(resumed_files_) << " files where " << options_.resume_file << " says\n";
    }
    if (options_.quiet) return;
    const uint64_t deleted = ledger_->deleted_count();
    console_.out << fmt::format(
        "{} created, {} replaced, {} unchanged, {} failed, {} skipped{}; {} chunks in {:.1f} s\n",
        Grouped(counts_.created), Grouped(counts_.replaced), Grouped(counts_.unchanged), Grouped(counts_.failed),
        Grouped(counts_.skipped), deleted == 0 ? "" : StrCat(", ", Grouped(deleted), " old parts deleted"),
        Grouped(counts_.chunks), seconds);
  }

  const Options& options_;
  const Console& console_;
  const std::unique_ptr<pb::RetrieverService::Stub> stub_;
  Progress progress_;
  std::optional<IngestStream> stream_;
  std::unique_ptr<IngestJournal> journal_;  // null without --resume-file
  std::optional<IngestLedger> ledger_;
  std::vector<InputFile> files_;
  bool reads_stdin_ = false;
  uint64_t bytes_total_ = 0;
  uint64_t bytes_finished_ = 0;
  uint64_t resumed_files_ = 0;
  Counts counts_;
};

int RunIngest(Options& options, const Console& console) {
  if (const absl::Status status = options.reading.Finish(); !status.ok()) {
    console.Error(MessageOf(status));
    return kUsage;
  }
  return IngestRun(options, console).Run();
}

}  // namespace

void AddIngestCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("ingest", "Put files and folders into the store");
  command->footer(kFooter);
  command->add_option("paths", options->paths, "Files, folders, or - for JSONL from standard input")
      ->type_name("PATH")
      ->required();
  AddReadingOptions(*command, options->reading);
  command
      ->add_option("--resume-file", options->resume_file,
                   "Note there what is stored; a later run passes over it without sending it")
      ->type_name("FILE");
  command
      ->add_option("--retries", options->retries,
                   "New tries in a row when the connection breaks, and of what the server cannot do just now")
      ->type_name("N")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command->add_option("--window", options->window, "Documents sent ahead of their acknowledgements")
      ->type_name("N")
      ->check(CLI::Range(size_t{1}, size_t{65536}))
      ->capture_default_str();
  command->add_flag("--quiet,-q", options->quiet, "No progress, no summary");
  AddCommonOptions(*command, options->common);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunIngest(*options, invocation.console); };
  });
}

}  // namespace retro::cli
