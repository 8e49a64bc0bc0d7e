// retro generate: text that goes on where a prompt ends.
#include <charconv>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/generate_view.h"
#include "cli/message_json.h"
#include "cli/retrieval_options.h"
#include "cli/run_file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr double kTimeoutDefault_s = 600;  // of a whole generation

constexpr char kFooter[] = R"(
Examples:
  retro generate "The most important thing about disks is"
  retro generate "Once" --temperature 0 --max-tokens 64 --attribution
  retro generate - --filter 'lang = "en"' < prompt.txt > text.txt
  retro generate "Once" --save-run run.jsonl ; retro generate "Once" --replay run.jsonl    the same neighbours and seed
  retro generate "Once" --no-retrieval --json | jq -rj '.token.text // empty'

Text goes to standard output as it comes, neighbours and summary to standard error. With --json, one event a line
(retro.generator.v1.GenerateResponse). --attribution marks, on a terminal, tokens from the eighth of a run on that also
stands in a neighbour, and lists at the end which neighbours gave what.)";

struct Options {
  CommonOptions common;
  std::string prompt;
  std::optional<uint32_t> max_tokens;
  // Sampling
  std::optional<float> temperature;
  std::optional<uint32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> repetition_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;
  std::optional<uint32_t> logprobs;
  bool echo = false;
  bool slide = false;
  // Retrieval
  RetrievalOptions retrieval;
  std::string replay;
  bool append = false;
  // What is shown
  bool attribution = false;
  bool show_neighbours = false;
  bool hide_neighbours = false;
  std::string save_run;
  bool quiet = false;
};

// Whether all of the text is one number, within its type's range.
template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.begin(), end, *number);
  return error == std::errc() && rest == end;
}

absl::Status FillLogitBias(const std::vector<std::string>& pairs, gen::Sampling* sampling) {
  for (const std::string& pair : pairs) {
    const std::string_view text = pair;
    const size_t equals = text.find('=');
    int32_t id = 0;
    float bias = 0;
    const bool whole = equals != std::string_view::npos && ParseNumber(text.substr(0, equals), &id) &&
                       ParseNumber(text.substr(equals + 1), &bias);
    if (!whole) return absl::InvalidArgumentError(StrCat("--logit-bias ", pair, ": write ID=NUMBER, as 17=-5"));
    (*sampling->mutable_logit_bias())[id] = bias;
  }
  return absl::OkStatus();
}

absl::Status FillSampling(const Options& options, gen::Sampling* sampling) {
  if (options.temperature) sampling->set_temperature(*options.temperature);
  if (options.top_k) sampling->set_top_k(*options.top_k);
  if (options.top_p) sampling->set_top_p(*options.top_p);
  if (options.repetition_penalty) sampling->set_repetition_penalty(*options.repetition_penalty);
  if (options.seed) sampling->set_seed(*options.seed);
  return FillLogitBias(options.logit_bias, sampling);
}

absl::StatusOr<gen::GenerateRequest> MakeRequest(const Options& options, const Console& console) {
  gen::GenerateRequest request;
  RETRO_ASSIGN_OR_RETURN(*request.mutable_text(), TextArgument(options.prompt, "prompt", console));
  if (options.max_tokens) request.set_max_tokens(*options.max_tokens);
  RETRO_RETURN_IF_ERROR(FillSampling(options, request.mutable_sampling()));
  gen::Retrieval& retrieval = *request.mutable_retrieval();
  RETRO_RETURN_IF_ERROR(FillRetrieval(options.retrieval, options.common.collection, &retrieval));
  if (options.append) retrieval.set_neighbour_mode(gen::NEIGHBOUR_MODE_APPEND);
  for (const std::string& stop : options.stop) request.add_stop_strings(stop);
  for (const int32_t id : options.stop_ids) request.add_stop_ids(id);
  if (options.logprobs) request.set_top_logprobs(*options.logprobs);
  if (options.echo) request.set_echo(true);
  if (options.attribution) request.set_attribution(true);
  if (options.slide) request.set_context_policy(gen::CONTEXT_POLICY_SLIDE);
  if (!options.replay.empty()) RETRO_RETURN_IF_ERROR(ReplayRunFile(options.replay, &request));
  return request;
}

GenerateViewOptions ViewOptions(const Options& options, const Console& console) {
  GenerateViewOptions view;
  view.neighbours = options.show_neighbours || (console.err_terminal && !options.quiet && !options.hide_neighbours);
  view.attribution = options.attribution;
  view.logprobs = options.logprobs.has_value();
  view.quiet = options.quiet;
  return view;
}

int RunGenerate(const Options& options, const Console& console) {
  const absl::StatusOr<gen::GenerateRequest> request = MakeRequest(options, console);
  RunFileWriter run_file;
  absl::Status ready = request.status();
  if (ready.ok() && !options.save_run.empty()) ready = run_file.Open(options.save_run);
  if (!ready.ok()) {
    console.Error(MessageOf(ready));
    return kUsage;
  }
  Call call(options.common.timeout_s);
  const auto stub = ConnectGenerator(options.common);
  const std::unique_ptr<grpc::ClientReader<gen::GenerateResponse>> stream = stub->Generate(call.context(), *request);
  GenerateView view(console, ViewOptions(options, console));
  gen::GenerateResponse event;
  bool cut_short = false;
  while (stream->Read(&event)) {
    run_file.Add(event);
    cut_short = event.finish().reason() == gen::FINISH_REASON_DRAINED;
    if (options.common.json) {
      console.out << MessageToJson(event) << std::endl;
    } else {
      view.Show(event);
    }
  }
  const grpc::Status status = stream->Finish();
  if (!options.common.json) view.Finish();
  const absl::Status saved = run_file.Close();
  if (!saved.ok()) console.Error(MessageOf(saved));
  if (!status.ok()) {
    const int code = ReportFailure(console, GeneratorPeer(options.common), status);
    if (view.generated_count() > 0)
      console.Error(StrCat("the text above ends after ", view.generated_count(), " tokens"));
    return code;
  }
  return cut_short || !saved.ok() ? kFailed : kOk;
}

void AddSamplingOptions(CLI::App& command, Options& options) {
  command
      .add_option("--max-tokens,-n", options.max_tokens,
                  "At most so many new tokens (default 256, or what fits and the key allows)")
      ->type_name("N")
      ->check(AboveZero());
  command.add_option("--temperature,-t", options.temperature, "0 takes the most likely token (default 0.7)")
      ->type_name("T")
      ->check(CLI::Range(0.0, 100.0));
  command.add_option("--top-k", options.top_k, "Only the so many most likely tokens; 0 is all (default 0)")
      ->type_name("N");
  command
      .add_option("--top-p", options.top_p, "Only the most likely that together have this probability (default 0.95)")
      ->type_name("P")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--repetition-penalty", options.repetition_penalty, "1 is none (default 1)")
      ->type_name("R")
      ->check(CLI::Range(0.0, 10.0));
  command.add_option("--seed", options.seed, "Repeat a run with the seed that it printed")->type_name("N");
  command.add_option("--logit-bias", options.logit_bias, "Add to a token's logit; repeatable")
      ->type_name("ID=NUMBER")
      ->allow_extra_args(false);
  command.add_option("--stop", options.stop, "End before this text; repeatable")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  command.add_option("--stop-id", options.stop_ids, "End after this token; repeatable")
      ->type_name("ID")
      ->allow_extra_args(false);
  command.add_flag("--echo", options.echo, "Print the prompt too, as the model sees it");
  command.add_flag("--slide", options.slide,
                   "Forget the oldest chunk instead of refusing what is longer than the context");
}

void AddReplayOptions(CLI::App& command, Options& options, CLI::Option* no_retrieval) {
  CLI::Option* const replay =
      command.add_option("--replay", options.replay, "Use the neighbours and the seed of a saved run")
          ->type_name("FILE");
  command.add_flag("--append", options.append, "Fill up replayed neighbours with found ones, up to k")->needs(replay);
  no_retrieval->excludes(replay);
}

void AddViewOptions(CLI::App& command, Options& options) {
  CLI::Option* const show = command.add_flag("--show-neighbours", options.show_neighbours,
                                             "Show each chunk's neighbours (default on a terminal)");
  command.add_flag("--hide-neighbours", options.hide_neighbours, "Do not")->excludes(show);
  command.add_flag("--attribution", options.attribution, "Show what of the text came from which neighbour");
  command
      .add_option("--logprobs", options.logprobs,
                  "List tokens with the log-probabilities of the N most likely, 0 to 20")
      ->type_name("N")
      ->check(CLI::Range(0, 20));
  command.add_option("--save-run", options.save_run, "Write neighbours and seed there, for --replay")
      ->type_name("FILE");
  command.add_flag("--quiet,-q", options.quiet, "Only the text");
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  options->common.timeout_s = kTimeoutDefault_s;
  CLI::App* command = app.add_subcommand("generate", "Go on where a prompt ends");
  command->footer(kFooter);
  command->add_option("prompt", options->prompt, "How the text begins; - reads it from standard input")
      ->type_name("PROMPT")
      ->required();
  AddSamplingOptions(*command, *options);
  GroupOptions(*command, "Sampling");
  AddReplayOptions(*command, *options, AddRetrievalOptions(*command, options->retrieval, "prompt"));
  GroupOptions(*command, "Retrieval");
  AddViewOptions(*command, *options);
  GroupOptions(*command, "What is shown");
  AddCommonOptions(*command, options->common, {.retriever = false, .generator = true, .collection = true});
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] { return RunGenerate(*options, invocation.console); };
  });
}

}  // namespace retro::cli
