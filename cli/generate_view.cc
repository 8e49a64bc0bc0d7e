#include "cli/generate_view.h"

#include <algorithm>

#include "cli/neighbour_view.h"
#include "cli/utf8.h"
#include "common/base/strings.h"
#include "fmt/format.h"
#include "google/protobuf/util/time_util.h"

namespace retro::cli {
namespace {

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(google::protobuf::util::TimeUtil::DurationToMicroseconds(duration)) / 1e6;
}

std::string_view ReasonText(gen::FinishReason reason) {
  switch (reason) {
    case gen::FINISH_REASON_EOS:
      return "the model ended the text";
    case gen::FINISH_REASON_STOP:
      return "a stop string or token came";
    case gen::FINISH_REASON_LENGTH:
      return "the most tokens were reached (--max-tokens)";
    case gen::FINISH_REASON_DRAINED:
      return "the server is shutting down: run again, as the text is not complete";
    default:
      return "for an unknown reason";
  }
}

std::string DegradationText(const gen::RetrievalEvent& event) {
  if (event.degradation() == gen::DEGRADATION_NONE || event.degradation() == gen::DEGRADATION_UNSPECIFIED) return "";
  return StrCat(", DEGRADED: ", OneLine(event.degradation_message()), " (", gen::Degradation_Name(event.degradation()),
                ")");
}

std::string Quoted(const std::string& raw) { return StrCat("\"", OneLine(RepairedUtf8(raw)), "\""); }

}  // namespace

GenerateView::GenerateView(const Console& console, GenerateViewOptions options)
    : console_(console), options_(options), style_(StyleFor(console.out_terminal)) {}

void GenerateView::Show(const gen::GenerateResponse& event) {
  if (event.has_token()) ShowToken(event.token());
  if (event.has_retrieval()) ShowRetrieval(event.retrieval());
  if (event.has_finish()) ShowFinish(event.finish());
}

void GenerateView::ShowToken(const gen::TokenEvent& token) {
  if (!token.prompt()) ++generated_count_;
  if (options_.attribution) CountAttribution(token);
  if (options_.logprobs) tokens_.push_back(token);
  const bool shared = options_.attribution && std::any_of(token.attributions().begin(), token.attributions().end(),
                                                          [](const gen::NeighbourAttribution& one) {
                                                            return one.shared_run() >= kSharedRunMin;
                                                          });
  PrintText(token.text(), shared ? style_.mark : token.prompt() ? style_.dim : std::string_view());
}

void GenerateView::PrintText(const std::string& text, std::string_view style) {
  if (text.empty()) return;
  const std::string shown = console_.out_terminal ? Printable(text) : text;
  console_.out << style << shown << (style.empty() ? std::string_view() : style_.reset) << std::flush;
  line_open_ = text.back() != '\n';
}

void GenerateView::EndLine() {
  if (line_open_) console_.out << std::endl;
  line_open_ = false;
}

void GenerateView::ShowRetrieval(const gen::RetrievalEvent& event) {
  if (options_.attribution) retrievals_[event.token_end()] = event;
  const std::string degradation = DegradationText(event);
  if (!options_.neighbours && (degradation.empty() || options_.quiet)) return;
  // On one terminal the block stands between the text's lines; a text that goes elsewhere is left alone.
  if (console_.out_terminal && console_.err_terminal) EndLine();
  const Style style = StyleFor(console_.err_terminal);
  console_.err << style.dim
               << fmt::format("[tokens {} to {}: {} neighbours in {:.0f} ms{}]\n", event.token_begin(),
                              event.token_end(), event.neighbours().neighbours_size(),
                              Seconds(event.lookup_time()) * 1e3, degradation);
  size_t rank = 0;
  for (const pb::Neighbour& neighbour : event.neighbours().neighbours()) {
    if (options_.neighbours) console_.err << NeighbourLine(++rank, neighbour, console_.width) << '\n';
  }
  console_.err << style.reset << std::flush;
}

void GenerateView::ShowFinish(const gen::FinishEvent& finish) {
  PrintText(finish.text(), {});
  if (options_.quiet) return;
  EndLine();
  const double total = Seconds(finish.total_time());
  const double rate = total > 0 ? finish.generated_tokens() / total : 0;
  console_.err << fmt::format(
      "[{}; {} + {} tokens, {} look-ups, seed {}; first token {:.2f} s, retrieval {:.2f} s, all {:.2f} s, {:.1f} "
      "tokens/s]\n",
      ReasonText(finish.reason()), finish.prompt_tokens(), finish.generated_tokens(), finish.lookups(), finish.seed(),
      Seconds(finish.time_to_first_token()), Seconds(finish.retrieval_time()), total, rate);
}

void GenerateView::Finish() {
  EndLine();
  if (options_.logprobs) ListLogprobs();
  if (options_.attribution) ListContributions();
}

void GenerateView::CountAttribution(const gen::TokenEvent& token) {
  raw_[token.position()] = token.raw();
  // The neighbours of the last chunk that ended before this token served it.
  const auto behind = retrievals_.upper_bound(token.position());
  if (behind == retrievals_.begin()) return;
  const uint32_t chunk_end = std::prev(behind)->first;
  for (const gen::NeighbourAttribution& one : token.attributions()) {
    Contribution& contribution = contributions_[{chunk_end, one.neighbour()}];
    contribution.attention += one.attention();
    ++contribution.tokens;
    if (one.shared_run() <= contribution.longest_run) continue;
    contribution.longest_run = one.shared_run();
    contribution.run_end = token.position() + 1;
  }
}

void GenerateView::ListContributions() const {
  console_.err << "What came from neighbours (share of the cross-attention; longest run of tokens in common, from "
               << kSharedRunMin << "):\n";
  for (const auto& [key, contribution] : contributions_) {
    const auto& [chunk_end, place] = key;
    const auto retrieval = retrievals_.find(chunk_end);
    const auto& neighbours = retrieval->second.neighbours().neighbours();
    if (place >= static_cast<uint32_t>(neighbours.size())) continue;
    console_.err << fmt::format("  {:3.0f}%  {}, for tokens from {}\n",
                                100 * contribution.attention / static_cast<double>(contribution.tokens),
                                NeighbourName(neighbours[static_cast<int>(place)], 60), chunk_end);
    if (contribution.longest_run < kSharedRunMin) continue;
    console_.err << fmt::format("        {} tokens: {}\n", contribution.longest_run,
                                Quoted(TextBefore(contribution.run_end, contribution.longest_run)));
  }
  if (contributions_.empty()) console_.err << "  nothing: no neighbours, or none attended to\n";
}

void GenerateView::ListLogprobs() const {
  console_.err << "Log-probabilities:\n";
  for (const gen::TokenEvent& token : tokens_) {
    console_.err << fmt::format("  {:6} {:8.3f}  {}", token.id(), token.logprob(), Quoted(token.raw()));
    for (const gen::TokenLogprob& other : token.top_logprobs()) {
      console_.err << fmt::format("  {}:{:.3f}", other.id(), other.logprob());
    }
    console_.err << '\n';
  }
}

std::string GenerateView::TextBefore(uint32_t end, uint32_t count) const {
  std::string text;
  for (auto at = raw_.lower_bound(end - std::min(end, count)); at != raw_.end() && at->first < end; ++at)
    text += at->second;
  return text;
}

}  // namespace retro::cli
