// Where the engine gets neighbours from. It knows nothing of collections, filters or the wire: what one request wants
// is an opaque NeighbourScope that only the source reads, and what a source found travels with the tokens as an opaque
// NeighbourDetails to whoever shows it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/model/neighbours.h"

namespace retro {

struct NeighbourScope {
  virtual ~NeighbourScope() = default;
};

struct NeighbourDetails {
  virtual ~NeighbourDetails() = default;
};

enum class Degradation { kNone, kPartialCoverage, kTimedOut, kUnavailable };

// What a failed look-up makes of its chunks.
inline Degradation DegradationOf(const absl::Status& failure) {
  return failure.code() == absl::StatusCode::kDeadlineExceeded ? Degradation::kTimedOut : Degradation::kUnavailable;
}

// A chunk that is complete, to be looked up by its own tokens.
struct ChunkQuery {
  int64_t chunk = 0;  // its place in the sequence, from 0
  std::vector<TokenId> tokens;
};

// What was found for one chunk.
struct FoundNeighbours {
  ChunkNeighbours rows;                             // for the encoder, [count, 2m]
  std::shared_ptr<const NeighbourDetails> details;  // may be null
  Degradation degradation = Degradation::kNone;
  std::string degradation_message;  // for people; empty unless degraded
  int64_t retokenised = 0;          // neighbours whose collection has another tokenizer than the model
};

// Chunks of one sequence, looked up in one call.
struct LookupRequest {
  uint64_t lookup = 0;  // names it in CancelLookup; unique in an engine
  std::vector<ChunkQuery> chunks;
  std::shared_ptr<const NeighbourScope> scope;
  std::chrono::steady_clock::time_point deadline;  // the answer is of no use after it
  std::string request_id;
  std::string traceparent;  // see CallContext
};

struct LookupAnswer {
  std::vector<FoundNeighbours> chunks;  // one a chunk asked for, in order
  bool asked = true;                    // false: nothing had to be looked up, the scope had it all
};

// Methods are called from the engine's thread and must return at once.
class NeighbourSource {
 public:
  virtual ~NeighbourSource() = default;

  // The answer of one look-up. DEADLINE_EXCEEDED: none in time.
  using Callback = std::function<void(uint64_t lookup, absl::StatusOr<LookupAnswer> answer)>;

  // Look-ups, each of another sequence, that fall due in the same moment: a source may ask for several together, but
  // each has an answer or a failure of its own. Calls `done` exactly once a look-up, from any thread, also within this
  // call.
  virtual void Lookup(std::vector<LookupRequest> requests, Callback done) = 0;

  // The answer is not wanted any more; `done` is still called. Unknown or finished look-ups are ignored.
  virtual void CancelLookup(uint64_t lookup) = 0;
};

}  // namespace retro
