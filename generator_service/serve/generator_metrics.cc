#include "generator_service/serve/generator_metrics.h"

namespace retro {
namespace {

constexpr char kStep[] = "retro_step_seconds";
constexpr char kStepHelp[] = "One step of the model, all its sessions together; whether it encoded neighbours.";
constexpr char kDegraded[] = "retro_degraded_chunks_total";
constexpr char kDegradedHelp[] = "Chunks that went on with fewer neighbours than they should have had, by cause.";
constexpr char kTokens[] = "retro_tokens_total";
constexpr char kTokensHelp[] = "Tokens of finished generations, by kind.";

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

GeneratorMetrics::GeneratorMetrics(Metrics& metrics, int64_t cache_blocks_total)
    : first_token_(metrics.Histogram("retro_time_to_first_token_seconds", "From a call to its first new token.")),
      between_tokens_(metrics.Histogram("retro_between_tokens_seconds", "Between two new tokens of one stream.")),
      step_(metrics.Histogram(kStep, kStepHelp, {{"encodes", "no"}})),
      encoding_step_(metrics.Histogram(kStep, kStepHelp, {{"encodes", "yes"}})),
      lookup_(metrics.Histogram("retro_lookup_seconds", "One chunk's look-up, as the generator sees it.")),
      queue_wait_(metrics.Histogram("retro_session_wait_seconds", "A generation's wait for a place, had or given up.")),
      stream_seconds_(metrics.Counter("retro_stream_seconds_total", "Time that finished generations took.")),
      retrieval_seconds_(
          metrics.Counter("retro_retrieval_wait_seconds_total", "Of it, time that they stood still for neighbours.")),
      tokens_prompt_(metrics.Counter(kTokens, kTokensHelp, {{"kind", "prompt"}})),
      tokens_generated_(metrics.Counter(kTokens, kTokensHelp, {{"kind", "generated"}})),
      tokens_computed_(metrics.Counter("retro_step_tokens_total", "Tokens fed to the model.")),
      step_sessions_(metrics.Counter("retro_step_sessions_total", "Sessions in steps: by steps, the batch size.")),
      step_neighbours_(metrics.Counter("retro_step_neighbours_total", "Neighbours encoded.")),
      degraded_partial_(metrics.Counter(kDegraded, kDegradedHelp, {{"cause", "PARTIAL_COVERAGE"}})),
      degraded_timed_out_(metrics.Counter(kDegraded, kDegradedHelp, {{"cause", "TIMED_OUT"}})),
      degraded_unavailable_(metrics.Counter(kDegraded, kDegradedHelp, {{"cause", "UNAVAILABLE"}})),
      chunks_(metrics.Counter("retro_chunks_total", "Chunks whose neighbours were settled.")),
      retokenised_(metrics.Counter("retro_retokenised_neighbours_total",
                                   "Neighbours tokenised again, as their collection has another tokenizer.")),
      running_(metrics.Gauge("retro_sessions_running", "Generations that have a place.")),
      waiting_(metrics.Gauge("retro_sessions_waiting", "Generations that wait for a place.")),
      cache_blocks_(metrics.Gauge("retro_cache_blocks", "Cache blocks that generations with a place have a claim to.")),
      cache_blocks_total_(metrics.Gauge("retro_cache_blocks_total", "Cache blocks that there are.")) {
  cache_blocks_total_.Set(static_cast<double>(cache_blocks_total));
}

void GeneratorMetrics::OnStep(const StepReport& step) {
  running_.Set(static_cast<double>(step.running));
  waiting_.Set(static_cast<double>(step.waiting));
  cache_blocks_.Set(static_cast<double>(step.cache_blocks));
  if (step.sessions == 0) return;
  (step.neighbours > 0 ? encoding_step_ : step_).Observe(Seconds(step.time));
  tokens_computed_.Increment(static_cast<double>(step.tokens));
  step_sessions_.Increment(static_cast<double>(step.sessions));
  step_neighbours_.Increment(static_cast<double>(step.neighbours));
}

void GeneratorMetrics::OnChunk(const ChunkOutput& chunk) {
  chunks_.Increment();
  lookup_.Observe(Seconds(chunk.lookup_time));
  retokenised_.Increment(static_cast<double>(chunk.found.retokenised));
  switch (chunk.found.degradation) {
    case Degradation::kNone:
      return;
    case Degradation::kPartialCoverage:
      return degraded_partial_.Increment();
    case Degradation::kTimedOut:
      return degraded_timed_out_.Increment();
    case Degradation::kUnavailable:
      return degraded_unavailable_.Increment();
  }
}

void GeneratorMetrics::OnWaited(Clock::duration time) { queue_wait_.Observe(Seconds(time)); }

void GeneratorMetrics::OnFirstToken(Clock::duration time) { first_token_.Observe(Seconds(time)); }

void GeneratorMetrics::OnFinish(const FinishOutput& finish) {
  stream_seconds_.Increment(Seconds(finish.total_time));
  retrieval_seconds_.Increment(Seconds(finish.retrieval_time));
  tokens_prompt_.Increment(static_cast<double>(finish.prompt_tokens));
  tokens_generated_.Increment(static_cast<double>(finish.generated_tokens));
}

}  // namespace retro
