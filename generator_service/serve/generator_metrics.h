// What the generator counts and times, beside the requests; docs/metrics.md lists it.
#pragma once

#include "common/rpc/metrics.h"
#include "generator_service/engine/engine.h"
#include "generator_service/engine/generation.h"

namespace retro {

// Any thread.
class GeneratorMetrics {
 public:
  GeneratorMetrics(Metrics& metrics, int64_t cache_blocks_total);

  void OnStep(const StepReport& step);
  void OnChunk(const ChunkOutput& chunk);
  // A generation's wait for a place, however it ended.
  void OnWaited(Clock::duration time);
  // From a call to its first new token, whatever becomes of it afterwards.
  void OnFirstToken(Clock::duration time);
  void OnFinish(const FinishOutput& finish);
  // Between two tokens of one stream, in seconds.
  void OnBetweenTokens(double seconds) { between_tokens_.Observe(seconds); }

 private:
  prometheus::Histogram& first_token_;
  prometheus::Histogram& between_tokens_;
  prometheus::Histogram& step_;
  prometheus::Histogram& encoding_step_;
  prometheus::Histogram& lookup_;
  prometheus::Histogram& queue_wait_;
  prometheus::Counter& stream_seconds_;
  prometheus::Counter& retrieval_seconds_;
  prometheus::Counter& tokens_prompt_;
  prometheus::Counter& tokens_generated_;
  prometheus::Counter& tokens_computed_;
  prometheus::Counter& step_sessions_;
  prometheus::Counter& step_neighbours_;
  prometheus::Counter& degraded_partial_;
  prometheus::Counter& degraded_timed_out_;
  prometheus::Counter& degraded_unavailable_;
  prometheus::Counter& chunks_;
  prometheus::Counter& retokenised_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& cache_blocks_;
  prometheus::Gauge& cache_blocks_total_;
};

}  // namespace retro
