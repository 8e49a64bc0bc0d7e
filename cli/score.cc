// retro score: how likely the model finds texts.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "absl/strings/escaping.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/document_reader.h"
#include "cli/exit_code.h"
#include "cli/file_walk.h"
#include "cli/part_cutter.h"
#include "cli/progress.h"
#include "cli/retrieval_options.h"
#include "cli/scorer.h"
#include "cli/utf8.h"
#include "common/base/strings.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kTimeoutDefault_s = 600;  // of one piece

constexpr char kFooter[] = R"(
Examples:
  retro score "The cat sat on the mat." --tokens
  retro score " Paris." --context "The capital of France is"
  retro score --file book.txt --file notes/           each file, and all together
  retro score --file book.txt --no-retrieval          what do the neighbours give?
  retro score --file book.txt --json | jq 'select(.event == "summary").bits_per_byte'

Files and folders are read as by retro ingest; in JSONL each document is a text. What is longer than the model's context
is scored in pieces, each after what precedes it, up to half of the context. White space between pieces is not counted.
Look-ups find what is stored: leave the text's own document out with --exclude, or by a --filter.
With --json: a line {"event": "piece", "tokens", "raw" (base64), "logprobs" (natural), "greedy", ...} for each piece,
{"event": "text", ...} with the sums of each text, and {"event": "summary", ...} at the end.)";

struct Options {
  CommonOptions common;
  std::vector<std::string> texts;
  std::vector<std::string> files;
  std::string context;
  ReaderOptions reader;
  RetrievalOptions retrieval;
  bool tokens = false;
  bool quiet = false;
};

// A token's bytes on one line, with its spaces.
std::string OneLineRaw(const std::string& raw) {
  std::string line;
  for (const char c : Printable(RepairedUtf8(raw))) line += c == '\n' ? "\\n" : c == '\t' ? "\\t" : std::string(1, c);
  return line;
}

class ScoreRun {
 public:
  ScoreRun(const Options& options, gen::Retrieval retrieval, const Console& console)
      : options_(options),
        console_(console),
        stub_(ConnectGenerator(options.common)),
        scorer_(*stub_, std::move(retrieval), options.common.timeout_s,
                [this](const std::string& text, const gen::ScoreResult& result) { TakePiece(text, result); }),
        progress_(console, options.quiet) {}

  // `texts` and the files of the options.
  int Run(const std::vector<std::string>& texts) {
    grpc::Status status = scorer_.Start();
    for (size_t i = 0; status.ok() && i < texts.size(); ++i) {
      BeginText(StrCat("text ", i + 1));
      status = ScoreWhole(texts[i]);
    }
    if (status.ok()) status = ScoreFiles();
    progress_.Clear();
    int code = skipped_ > 0 ? kFailed : kOk;
    if (!status.ok()) code = ReportFailure(console_, GeneratorPeer(options_.common), status);
    EndText();
    if (!status.ok() && all_.tokens > 0) console_.Error("the sums are of what was scored before that");
    PrintSummary(status.ok());
    return code;
  }

 private:
  grpc::Status ScoreWhole(const std::string& text) {
    PartCutter cutter(scorer_.piece_bytes());
    cutter.Append(text);
    cutter.Finish();
    if (cutter.empty()) Skip(absl::InvalidArgumentError(StrCat(name_, ": it is white space alone: write something")));
    while (!cutter.empty()) {
      if (grpc::Status status = scorer_.Score(cutter.Take()); !status.ok()) return status;
    }
    return grpc::Status::OK;
  }

  grpc::Status ScoreFiles() {
    const WalkResult walked = WalkFiles(options_.files, {});
    for (const absl::Status& problem : walked.problems) Skip(problem);
    for (const InputFile& file : walked.files) bytes_total_ += file.size_bytes;
    ReaderOptions reading = options_.reader;
    reading.part_bytes = scorer_.piece_bytes();
    for (const InputFile& file : walked.files) {
      const std::unique_ptr<DocumentReader> reader = OpenDocumentReader(file, reading);
      if (grpc::Status status = ScoreDocuments(*reader); !status.ok()) return status;
      bytes_finished_ += file.size_bytes;
    }
    return grpc::Status::OK;
  }

  grpc::Status ScoreDocuments(DocumentReader& reader) {
    while (std::optional<Reading> reading = reader.Next()) {
      if (!reading->problem.ok()) {
        Skip(reading->problem);
        continue;
      }
      if (reading->part.number <= 1) BeginText(reading->part.document);
      if (grpc::Status status = scorer_.Score(reading->write.document().text()); !status.ok()) return status;
      ShowProgress(bytes_finished_ + reader.consumed_bytes());
    }
    return grpc::Status::OK;
  }

  void BeginText(const std::string& name) {
    EndText();
    name_ = name;
    scorer_.BeginText(options_.context);
  }

  void TakePiece(const std::string& text, const gen::ScoreResult& result) {
    text_.Add(text, result);
    if (options_.common.json) {
      PrintJson(PieceJson(text, result));
    } else if (options_.tokens) {
      progress_.Clear();
      PrintTokens(result);
    }
  }

  Json PieceJson(const std::string& text, const gen::ScoreResult& result) const {
    std::vector<std::string> raw;
    for (const std::string& bytes : result.raw()) raw.push_back(absl::Base64Escape(ToAbsl(bytes)));
    return {{"event", "piece"},
            {"name", name_},
            {"bytes", text.size()},
            {"tokens", std::vector<int32_t>(result.tokens().begin(), result.tokens().end())},
            {"raw", raw},
            {"logprobs", std::vector<float>(result.logprobs().begin(), result.logprobs().end())},
            {"greedy", std::vector<bool>(result.greedy().begin(), result.greedy().end())},
            {"logprob", result.total_logprob()}};
  }

  void PrintTokens(const gen::ScoreResult& result) const {
    for (int i = 0; i < result.tokens_size(); ++i) {
      console_.out << fmt::format("{:6} {:9.4f} {}  \"{}\"\n", result.tokens(i), result.logprobs(i),
                                  result.greedy(i) ? '*' : ' ', i < result.raw_size() ? OneLineRaw(result.raw(i)) : "");
    }
  }

  // The sums of the text that ends here.
  void EndText() {
    if (text_.tokens == 0) return;
    progress_.Clear();
    if (options_.common.json) {
      PrintJson(SumsJson("text", text_, {{"name", name_}}));
    } else {
      console_.out << SumsLine(name_, text_);
    }
    all_.Add(text_);
    ++text_count_;
    text_ = ScoreTotals();
  }

  void PrintSummary(bool complete) {
    if (options_.common.json) {
      PrintJson(SumsJson(
          "summary", all_,
          {{"complete", complete}, {"texts", text_count_}, {"skipped", skipped_}, {"seconds", progress_.seconds()}}));
      return;
    }
    if (text_count_ > 1) console_.out << SumsLine(StrCat("all ", Grouped(text_count_), " texts"), all_);
    if (all_.degraded > 0) {
      console_.err << Grouped(all_.degraded)
                   << " look-ups failed or were not complete: their chunks had fewer neighbours\n";
    }
  }

  static Json SumsJson(const char* event, const ScoreTotals& totals, const Json& facts) {
    Json json = {{"event", event}};
    json.update(facts);
    json.update({{"bytes", totals.bytes},
                 {"tokens", totals.tokens},
                 {"greedy", totals.greedy},
                 {"logprob", totals.logprob},
                 {"bits_per_byte", totals.BitsPerByte()},
                 {"perplexity", totals.Perplexity()},
                 {"chunks", totals.chunks},
                 {"degraded", totals.degraded}});
    return json;
  }

  static std::string SumsLine(const std::string& name, const ScoreTotals& totals) {
    return fmt::format(
        "{}: {:.4f} bits a byte, {} bytes; perplexity {:.2f} a token, {} tokens, {:.0f}% of them the likeliest; {} "
        "chunks with neighbours\n",
        OneLine(name), totals.BitsPerByte(), Grouped(totals.bytes), totals.Perplexity(), Grouped(totals.tokens),
        100.0 * static_cast<double>(totals.greedy) / static_cast<double>(totals.tokens), Grouped(totals.chunks));
  }

  void Skip(const absl::Status& problem) {
    ++skipped_;
    progress_.Clear();
    if (options_.common.json) {
      PrintJson({{"event", "skipped"}, {"message", std::string(MessageOf(problem))}});
    } else {
      console_.Error(StrCat("skipped: ", MessageOf(problem)));
    }
  }

  void PrintJson(const Json& json) const {
    console_.out << json.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }

  void ShowProgress(uint64_t bytes) {
    ProgressState state;
    state.items = all_.tokens + text_.tokens;
    state.items_name = "tokens";
    state.bytes = bytes;
    state.bytes_total = bytes_total_;
    progress_.Show(state);
  }

  const Options& options_;
  const Console& console_;
  const std::unique_ptr<gen::GeneratorService::Stub> stub_;
  Scorer scorer_;
  Progress progress_;
  std::string name_;  // of the text under way
  ScoreTotals text_;  // its sums
  ScoreTotals all_;   // of the texts before it
  uint64_t text_count_ = 0;
  uint64_t skipped_ = 0;
  uint64_t bytes_total_ = 0;  // of files
  uint64_t bytes_finished_ = 0;
};

int RunScore(const Options& options, const Console& console) {
  gen::Retrieval retrieval;
  std::vector<std::string> texts;
  absl::Status status = FillRetrieval(options.retrieval, options.common.collection, &retrieval);
  for (const std::string& argument : options.texts) {
    absl::StatusOr<std::string> text = TextArgument(argument, "text", console);
    if (text.ok()) {
      texts.push_back(*std::move(text));
    } else if (status.ok()) {
      status = text.status();
    }
  }
  if (status.ok() && texts.empty() && options.files.empty()) {
    status = absl::InvalidArgumentError("nothing to score: give a TEXT or a --file");
  }
  if (!status.ok()) {
    console.Error(MessageOf(status));
    return kUsage;
  }
  return ScoreRun(options, std::move(retrieval), console).Run(texts);
}

}  // namespace

void AddScoreCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  options->common.timeout_s = kTimeoutDefault_s;
  CLI::App* command = app.add_subcommand("score", "Tell how likely the model finds texts");
  command->footer(kFooter);
  command->add_option("texts", options->texts, "Texts; - reads one from standard input")->type_name("TEXT");
  command->add_option("--file", options->files, "A file or folder; repeatable")
      ->type_name("PATH")
      ->allow_extra_args(false);
  command->add_option("--context", options->context, "What stands before each text; is not scored itself")
      ->type_name("TEXT");
  command->add_flag("--tokens", options->tokens,
                    "List each token: id, log-probability, * if it was the likeliest, its bytes");
  AddEncodingOptions(*command, options->reader.encoding, options->reader.repair);
  command->add_flag("--quiet,-q", options->quiet, "No progress");
  GroupOptions(*command, "What is scored");
  AddRetrievalOptions(*command, options->retrieval, "context");
  GroupOptions(*command, "Retrieval");
  AddCommonOptions(*command, options->common, {.retriever = false, .generator = true, .collection = true});
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunScore(*options, invocation.console); };
  });
}

}  // namespace retro::cli
