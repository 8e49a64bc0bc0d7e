// Gives an embedder's one compute thread its work: batches by a budget of tokens, queries before ingest but for one
// batch in kQueryBatchesInARow + 1, fair between those whom it is for. Without torch and gRPC. (A queue owned by one
// thread and cut by tokens, where callers who have left are dropped when they are taken out, is how
// text-embeddings-inference does it.)
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/fair_share.h"
#include "common/base/sync.h"
#include "common/base/turns.h"
#include "retriever_service/embed/embedder.h"

namespace retro {

enum class EmbedPriority {
  kQuery,   // somebody waits: goes first, and is refused at once when there are too many
  kIngest,  // fills the rest of the time, and has some of it in any case; Submit waits for room
};

// While ingest waits, so many batches of queries have their turn, then one of ingest: whoever may only ask must not be
// able to stop all writing. A batch of ingest being the smaller, queries keep nearly all of the time.
inline constexpr int kQueryBatchesInARow = 8;

struct EmbedReply {
  std::vector<float> vectors;  // row-major [sequences, dimension]
  double queue_seconds = 0;    // until its first sequence was taken
  double embed_seconds = 0;    // of computing, for all batches that it had a part in
};

struct EmbedRequest {
  std::vector<TokenSequence> sequences;  // made by Embedder::Encode, on the caller's thread
  EmbedPriority priority = EmbedPriority::kQuery;
  std::string key;  // whose turn and share it is; "": nobody's in particular
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  // Asked before the request, or the next part of it, is computed; may be empty. Runs under the batcher's lock: cheap,
  // and no call of the batcher.
  std::function<bool()> cancelled;
  // Called exactly once: on the compute thread, or on the caller's inside Submit for a request that is not accepted.
  // Holds up all embedding while it runs; must not call Stop, nor Submit with kIngest.
  std::function<void(absl::StatusOr<EmbedReply>)> done;
};

struct BatcherLimits {
  // A batch takes sequences until it has this many tokens. A query waits for one batch of ingest at most, and for one
  // more after each kQueryBatchesInARow of the queries before it.
  int64_t query_batch_tokens = 4096;
  int64_t ingest_batch_tokens = 1024;
  // Sequences that wait, shared fairly between keys (see FairShare). A request that finds nobody waiting is accepted
  // whatever its size.
  size_t queued_queries_max = 1024;
  size_t queued_ingest_max = 2048;
};

struct BatcherStats {
  size_t queued_queries = 0;  // sequences
  size_t queued_ingest = 0;
  uint64_t batches = 0;
  uint64_t sequences = 0;
  uint64_t tokens = 0;
  uint64_t refused = 0;  // requests, RESOURCE_EXHAUSTED
  uint64_t dropped = 0;  // requests, cancelled or too late
  double embed_seconds = 0;
};

// Thread-safe.
class EmbedBatcher {
 public:
  explicit EmbedBatcher(std::unique_ptr<Embedder> embedder, const BatcherLimits& limits = {});
  // Stops.
  ~EmbedBatcher();
  EmbedBatcher(const EmbedBatcher&) = delete;
  EmbedBatcher& operator=(const EmbedBatcher&) = delete;

  // For info() and Encode().
  const Embedder& embedder() const { return *embedder_; }

  // The outcome goes to request.done: the vectors; RESOURCE_EXHAUSTED for a query when too many wait; CANCELLED or
  // DEADLINE_EXCEEDED; UNAVAILABLE once stopped; the embedder's own error, which all of the failing batch get. Keys
  // that wait take turns, of 32 sequences or a batch; a longer request goes on behind what else its key waits for.
  // kIngest blocks until there is room, or it is cancelled, too late or stopped.
  void Submit(EmbedRequest request) ABSL_LOCKS_EXCLUDED(mutex_);

  // Lets the batch that is being computed end, fails what waits, and returns when the compute thread has ended.
  // May be called more than once.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  BatcherStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending;
  struct Piece;
  struct Finished;
  struct Queue {
    Turns<std::shared_ptr<Pending>> waiting;  // some half taken
    FairShare sequences;                      // that are not taken yet
    const int64_t batch_tokens;
  };

  void Compute();
  // Whose turn it is, of those that have something waiting.
  Queue& NextQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the room, if OK.
  absl::Status WaitForRoom(const EmbedRequest& request, Queue& queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Piece> TakeBatch(std::vector<Finished>& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EmbedBatch(std::vector<Piece> batch) ABSL_LOCKS_EXCLUDED(mutex_);
  void FailBatch(const std::vector<Piece>& batch, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void FailAll() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<Embedder> embedder_;  // Embed: compute thread only

  mutable Mutex mutex_;
  CondVar work_;  // something was queued, or stop
  CondVar room_;  // something was taken out, or stop
  Queue queries_ ABSL_GUARDED_BY(mutex_);
  Queue ingest_ ABSL_GUARDED_BY(mutex_);
  int query_batches_ ABSL_GUARDED_BY(mutex_) = 0;  // in a row while ingest waited
  BatcherStats stats_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  Mutex join_mutex_;  // two callers of Stop
  std::thread thread_ ABSL_GUARDED_BY(join_mutex_);
};

// Submits and waits for the outcome; request.done is set by this function. Not on the compute thread.
absl::StatusOr<EmbedReply> EmbedAndWait(EmbedBatcher& batcher, EmbedRequest request);

}  // namespace retro
