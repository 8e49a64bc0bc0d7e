// One stream: its tokens, where its chunks end, which neighbours are known, and what its reader is told. Plain logic
// without threads or clock; the scheduler drives it.
//
//   kWaitingForPlace -> kPrefill -> kDecode <-> kWaitingForNeighbours -> kFinished
//
// A chunk is looked up as soon as its last token is known: all complete chunks of a prompt in one call, unless they may
// have more neighbours than a session holds at once, later ones when the token that completes them is sampled. Its
// neighbours are needed only when that token is fed to the model (it is
// the first that attends to them, paper section 2.4), so a prompt's prefill goes on up to there while the look-up runs.
// A chunk that the last token of a generation completes serves nothing and is not looked up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "generator_service/engine/generation.h"
#include "generator_service/engine/prefetched_neighbours.h"
#include "generator_service/engine/sampler.h"
#include "generator_service/engine/step.h"
#include "generator_service/engine/text_assembler.h"
#include "generator_service/engine/token_bytes.h"
#include "generator_service/model/chunk_geometry.h"
#include "generator_service/model/context_window.h"

namespace retro {

// What a session needs to know of the model.
struct ModelFacts {
  int64_t vocabulary = 0;
  int64_t chunk_length = 64;             // m
  int64_t context_length = 2048;         // n
  TokenId pad_id = 0;                    // of neighbour rows
  const Tokenizer* tokenizer = nullptr;  // outlives the engine
  int64_t neighbour_tokens = 0;          // of the cache, as large as what CCA keeps of one neighbour
};

enum class SessionState { kWaitingForPlace, kPrefill, kDecode, kWaitingForNeighbours, kFinished };

class Session {
 public:
  // Neighbours that are held for tokens yet to be fed: those of a prompt of 2,048 tokens, 64 a chunk.
  static constexpr int64_t kNeighboursAheadMax = 2048;

  Session(uint64_t id, GenerationRequest request, std::shared_ptr<EventSink> sink, const ModelFacts& facts);

  uint64_t id() const { return id_; }
  SessionState state() const;
  // It has begun to generate, and waits for the neighbours that its next token is to be fed with.
  bool paused() const { return totals_.generated_tokens > 0 && state() == SessionState::kWaitingForNeighbours; }
  const GenerationRequest& request() const { return request_; }
  const EventSink& sink() const { return *sink_; }
  // Tokens that its caches may come to hold, and as many as the neighbours of the chunk attended to are as large as:
  // what has to be reserved for it.
  int64_t cached_tokens_max() const;
  int64_t neighbour_tokens_max() const;
  // Tokens that it has yet to be fed, if nothing ends it before: as many steps at most, if each has one of them.
  int64_t tokens_left_max() const { return prompt_length_ + request_.max_tokens - fed_; }
  // Those of its prompt among them.
  int64_t prompt_left() const { return std::max<int64_t>(prompt_length_ - fed_, 0); }

  // It has a place; the prompt's look-up may start.
  void Admit(Clock::time_point now);

  // The look-up to be made now, if there is one; `lookup` is its name. Ask until there is none after each change.
  std::optional<LookupRequest> NextLookup(uint64_t lookup, Clock::time_point now);
  // A look-up that is running, and when it is given up.
  std::optional<uint64_t> pending_lookup() const { return pending_lookup_; }
  Clock::time_point lookup_deadline() const { return lookup_deadline_; }
  // The answer of the pending look-up.
  void OnNeighbours(absl::StatusOr<LookupAnswer> answer, Clock::time_point now);

  // Tokens that can be fed to the model now; 0 while it waits or is finished.
  int64_t Runnable() const;
  // How many of the next `tokens`, the last of them, have logits by which tokens of the prompt are scored.
  int64_t ScoredRows(int64_t tokens) const;
  // Neighbours that the encoder has to encode for a slice of so many tokens.
  int64_t EncoderRows(int64_t tokens) const;
  // How many of the next `tokens` can be fed with at most so many neighbours to encode: 0 if their first token
  // completes a chunk that has more.
  int64_t TokensWithinRows(int64_t tokens, int64_t rows) const;
  // A slice of the next `tokens` (1 ... Runnable()), valid until the session is touched again.
  StepItem Slice(int64_t tokens) const;
  // What came of it.
  void OnStep(int64_t tokens, const StepOutput& output, Sampler& sampler, Clock::time_point now);

  // Ends it before its time. The caller frees its place.
  void Fail(const absl::Status& status, Clock::time_point now);
  void Drain(Clock::time_point now);

 private:
  bool finished() const { return finished_; }
  int64_t KnownTokens() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t FeedLimit() const;
  int64_t ChunksToLookUp() const;
  int64_t LogitRows(int64_t tokens) const;
  bool OnlySamples(const StepItem& item) const;
  void EndWait(Clock::time_point now);
  void EmitPromptTokens(int64_t first_row, const StepOutput& output, Sampler& sampler, Clock::time_point now);
  void EmitPromptToken(int64_t position, ScoredToken token);
  void EmitSampled(ScoredToken token, const StepOutput& output, Clock::time_point now);
  std::vector<NeighbourAttribution> Attribute(int64_t position, const std::vector<float>& attention) const;
  void Store(LookupAnswer answer, Clock::duration lookup_time);
  void NoteStanding(Clock::time_point now);
  void Finish(FinishCause cause, std::string stopped_by, Clock::time_point now);

  const uint64_t id_;
  const GenerationRequest request_;
  const std::shared_ptr<EventSink> sink_;
  const ModelFacts facts_;
  const ChunkGeometry geometry_;
  const ContextWindow window_;
  const int64_t prompt_length_;

  std::vector<TokenId> tokens_;  // prompt and what was generated
  int64_t fed_ = 0;              // of them, in the model's caches
  PrefetchedNeighbours neighbours_;
  std::optional<uint64_t> pending_lookup_;
  int64_t pending_chunks_ = 0;
  Clock::time_point lookup_started_;
  Clock::time_point lookup_deadline_;
  std::optional<Clock::time_point> standing_since_;  // nothing to run but for neighbours

  SeenTokens seen_;
  TokenBytes bytes_;
  TextAssembler text_;

  bool admitted_ = false;
  bool finished_ = false;
  FinishOutput totals_;
};

}  // namespace retro
