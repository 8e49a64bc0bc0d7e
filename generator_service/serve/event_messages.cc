#include "generator_service/serve/event_messages.h"

#include "generator_service/engine/text_assembler.h"
#include "generator_service/serve/retrieval_scope.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;

void SetDuration(Clock::duration duration, google::protobuf::Duration* message) {
  constexpr int64_t kNanosPerSecond = 1'000'000'000;
  const int64_t nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
  message->set_seconds(nanos / kNanosPerSecond);
  message->set_nanos(static_cast<int>(nanos % kNanosPerSecond));
}

pb::Degradation DegradationMessage(Degradation degradation) {
  switch (degradation) {
    case Degradation::kNone:
      return pb::DEGRADATION_NONE;
    case Degradation::kPartialCoverage:
      return pb::DEGRADATION_PARTIAL_COVERAGE;
    case Degradation::kTimedOut:
      return pb::DEGRADATION_TIMED_OUT;
    case Degradation::kUnavailable:
      return pb::DEGRADATION_UNAVAILABLE;
  }
  return pb::DEGRADATION_UNSPECIFIED;
}

pb::FinishReason FinishReasonMessage(FinishCause cause) {
  switch (cause) {
    case FinishCause::kEos:
      return pb::FINISH_REASON_EOS;
    case FinishCause::kStop:
      return pb::FINISH_REASON_STOP;
    case FinishCause::kLength:
      return pb::FINISH_REASON_LENGTH;
    case FinishCause::kDrained:
      return pb::FINISH_REASON_DRAINED;
  }
  return pb::FINISH_REASON_UNSPECIFIED;
}

// protobuf's strings are UTF-8, the text that ended a generation may be half a character.
std::string Mended(const std::string& bytes) {
  Utf8Mender mender;
  std::string text = mender.Append(bytes);
  return text + mender.Finish();
}

}  // namespace

pb::TokenEvent TokenMessage(const TokenOutput& output) {
  pb::TokenEvent message;
  message.set_position(static_cast<uint32_t>(output.position));
  message.set_id(output.token.id);
  message.set_raw(output.raw);
  message.set_text(output.text);
  message.set_logprob(output.token.logprob);
  for (const TokenLogprob& one : output.token.top) {
    pb::TokenLogprob* top = message.add_top_logprobs();
    top->set_id(one.id);
    top->set_logprob(one.logprob);
  }
  for (const NeighbourAttribution& one : output.attributions) {
    pb::NeighbourAttribution* attribution = message.add_attributions();
    attribution->set_neighbour(static_cast<uint32_t>(one.neighbour));
    attribution->set_attention(one.attention);
    attribution->set_shared_run(static_cast<uint32_t>(one.shared_run));
  }
  message.set_prompt(output.prompt);
  return message;
}

pb::RetrievalEvent RetrievalMessage(const ChunkOutput& output) {
  pb::RetrievalEvent message;
  message.set_token_begin(static_cast<uint32_t>(output.token_begin));
  message.set_token_end(static_cast<uint32_t>(output.token_end));
  if (const auto* shown = static_cast<const ShownNeighbours*>(output.found.details.get())) {
    *message.mutable_neighbours() = shown->message;
    if (shown->times.has_value()) *message.mutable_search_times() = *shown->times;
  }
  message.mutable_neighbours()->set_chunk_number(static_cast<uint32_t>(output.chunk));
  SetDuration(output.lookup_time, message.mutable_lookup_time());
  message.set_degradation(DegradationMessage(output.found.degradation));
  message.set_degradation_message(output.found.degradation_message);
  message.set_retokenised(static_cast<uint32_t>(output.found.retokenised));
  return message;
}

std::shared_ptr<const HeldBytes> HeldBy(const ChunkOutput& output) {
  const auto* shown = static_cast<const ShownNeighbours*>(output.found.details.get());
  return shown == nullptr ? nullptr : shown->held;
}

pb::FinishEvent FinishMessage(const FinishOutput& output, uint64_t seed, int64_t offset) {
  pb::FinishEvent message;
  message.set_reason(FinishReasonMessage(output.cause));
  message.set_prompt_tokens(static_cast<uint32_t>(output.prompt_tokens));
  message.set_generated_tokens(static_cast<uint32_t>(output.generated_tokens));
  message.set_lookups(static_cast<uint32_t>(output.lookups));
  message.set_seed(seed);
  SetDuration(output.queue_time, message.mutable_queue_time());
  if (output.time_to_first_token.has_value()) {
    SetDuration(*output.time_to_first_token, message.mutable_time_to_first_token());
  }
  SetDuration(output.retrieval_time, message.mutable_retrieval_time());
  SetDuration(output.total_time, message.mutable_total_time());
  message.set_stopped_by(Mended(output.stopped_by));
  message.set_text(output.text);
  if (output.cause == FinishCause::kDrained) {
    pb::ResumeState* resume = message.mutable_resume();
    resume->mutable_tokens()->mutable_ids()->Assign(output.tokens.begin(), output.tokens.end());
    resume->set_offset(static_cast<uint32_t>(offset));
    resume->set_seed(seed);
  }
  return message;
}

}  // namespace retro
