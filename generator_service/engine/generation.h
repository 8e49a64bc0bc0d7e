// What a caller asks of the engine, and what it gets back, event by event.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/engine/neighbour_source.h"
#include "generator_service/engine/sampler.h"

namespace retro {

using Clock = std::chrono::steady_clock;

enum class FailurePolicy { kFail, kGoOnWithout };

struct RetrievalSettings {
  bool enabled = false;
  int64_t offset = 0;          // tokens of the first chunk, 0 (a full one) ... m-1
  std::optional<float> gate;   // the model's own if not set
  int64_t neighbours_max = 0;  // of one chunk
  FailurePolicy on_failure = FailurePolicy::kFail;
  std::chrono::milliseconds timeout_ms{2000};  // of one look-up
  std::shared_ptr<const NeighbourScope> scope;
};

// Validated by whoever fills it: ids within the vocabulary, prompt and max_tokens within the model's length, unless
// the window slides.
struct GenerationRequest {
  std::vector<TokenId> prompt;  // at least one
  int64_t max_tokens = 0;       // 0: nothing is generated, the prompt's tokens from echo_from on are scored
  SamplingSettings sampling;
  RetrievalSettings retrieval;
  bool slide = false;  // past the model's context the self-attention drops its oldest block of m tokens
  std::vector<std::string> stop_strings;
  std::vector<TokenId> stop_ids;     // the tokenizer's eos always stops
  std::optional<int64_t> echo_from;  // prompt tokens from this place on are sent, each with its log-probability
  bool attribution = false;
  Clock::time_point arrival;  // for the times in the finish event
  Clock::time_point deadline = Clock::time_point::max();
  std::string request_id;
  std::string traceparent;  // see CallContext
  std::string key;          // whom it is for: places are shared fairly between keys; "" is nobody in particular
};

struct NeighbourAttribution {
  int64_t neighbour = 0;   // its place among the neighbours of the chunk attended to
  float attention = 0;     // share of the cross-attention on it: mean over heads and layers
  int64_t shared_run = 0;  // longest run of tokens that ends with this one and stands in it
};

struct TokenOutput {
  int64_t position = 0;
  ScoredToken token;  // log-probability 0 for the very first token of a sequence, which nothing predicts
  std::string raw;
  std::string text;
  std::vector<NeighbourAttribution> attributions;
  bool prompt = false;
};

struct ChunkOutput {
  int64_t chunk = 0;
  int64_t token_begin = 0;
  int64_t token_end = 0;
  FoundNeighbours found;
  Clock::duration lookup_time{};
};

enum class FinishCause { kEos, kStop, kLength, kDrained };

struct FinishOutput {
  FinishCause cause = FinishCause::kLength;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t lookups = 0;
  Clock::duration queue_time{};
  std::optional<Clock::duration> time_to_first_token;  // not set if there was none
  Clock::duration retrieval_time{};                    // that the sequence stood still for neighbours
  Clock::duration total_time{};
  std::string stopped_by;
  std::string text;             // held back until now
  std::vector<TokenId> tokens;  // kDrained: prompt and everything generated
};

// One stream's reader, called by the engine's thread; must return at once. Exactly one of OnFinish and OnError ends it.
class EventSink {
 public:
  virtual ~EventSink() = default;
  // Once, when it gets its place or ends without one; before all else.
  virtual void OnWaited(Clock::duration /*time*/) {}
  virtual void OnToken(TokenOutput output) = 0;
  // Before the first token that the chunk's neighbours serve.
  virtual void OnChunk(ChunkOutput output) = 0;
  virtual void OnFinish(FinishOutput output) = 0;
  virtual void OnError(absl::Status status) = 0;
  // False: the reader is behind; the sequence pauses until this is true and Engine::Wake() was called.
  virtual bool HasRoom() const = 0;
};

}  // namespace retro
