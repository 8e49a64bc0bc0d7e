// Neighbours for tests: a made-up store whose answers depend on the chunk's tokens alone, a source that records what it
// is asked and answers when the test says so, a reader that records its stream, and the plain loop that all of it must
// agree with.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "generator_service/engine/generation.h"
#include "tests/tiny_model.h"

namespace retro {

// None to two neighbours of two times eight tokens; some with a short continuation or none.
FoundNeighbours MadeUpNeighbours(const std::vector<TokenId>& chunk);
// A fifth of the chunks have no answer but a failure.
bool MadeUpFailure(const std::vector<TokenId>& chunk);
LookupAnswer MadeUpAnswer(const LookupRequest& request);

// What the model generates for the request, computed the plain way: the whole text from the beginning for every token,
// one request at a time, every chunk with its made-up neighbours. Failing look-ups (if `failures`) give no neighbours.
std::vector<TokenId> GenerateAlone(const RetroModel& model, const Tokenizer& tokenizer,
                                   const GenerationRequest& request, bool failures = false);
// The same with the neighbours of these events, which are all that it had.
std::vector<TokenId> GenerateAlone(const RetroModel& model, const Tokenizer& tokenizer,
                                   const GenerationRequest& request, const std::vector<ChunkOutput>& events);

// Answers at once from the made-up store unless told to hold.
class FakeSource : public NeighbourSource {
 public:
  void Lookup(std::vector<LookupRequest> requests, Callback done) override;
  void CancelLookup(uint64_t lookup) override;

  void Hold(bool hold);
  // Answers the oldest held look-up; false if there is none.
  bool Answer(absl::StatusOr<LookupAnswer> answer);
  bool AnswerMadeUp();

  std::vector<LookupRequest> requests() const;
  std::vector<uint64_t> cancelled() const;
  size_t held() const;

 private:
  struct Held {
    LookupRequest request;
    Callback done;
  };
  mutable Mutex mutex_;
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Held> held_ ABSL_GUARDED_BY(mutex_);
  std::vector<LookupRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> cancelled_ ABSL_GUARDED_BY(mutex_);
};

// Records one stream. Any thread.
class RecordingSink : public EventSink {
 public:
  void OnToken(TokenOutput output) override;
  void OnChunk(ChunkOutput output) override;
  void OnFinish(FinishOutput output) override;
  void OnError(absl::Status status) override;
  bool HasRoom() const override;

  void SetRoom(bool room);
  // Waits until the stream has ended.
  void AwaitEnd();
  // Waits until it has so many generated tokens, or has ended.
  void AwaitTokens(size_t count);
  bool ended() const;

  // Of what was generated, in order.
  std::vector<TokenId> Generated() const;
  std::vector<TokenOutput> tokens() const;
  std::vector<ChunkOutput> chunks() const;
  std::optional<FinishOutput> finish() const;
  absl::Status error() const;
  // All texts together.
  std::string Text() const;

 private:
  size_t GeneratedCount() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  CondVar changed_;
  bool room_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<TokenOutput> tokens_ ABSL_GUARDED_BY(mutex_);
  std::vector<ChunkOutput> chunks_ ABSL_GUARDED_BY(mutex_);
  std::optional<FinishOutput> finish_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace retro
