#include "retriever_service/embed/batcher.h"

#include <algorithm>
#include <future>
#include <utility>

#include "common/base/error.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

// How often a Submit that waits for room asks whether its caller has left.
constexpr auto kCancelPoll = std::chrono::milliseconds(50);
// Of one request before the next of its key and the other keys have theirs.
constexpr size_t kTurnSequences = 32;
// What a refused query is told to wait: a few batches.
constexpr auto kRetryAfter = std::chrono::milliseconds(200);

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Why the caller no longer wants an answer; OK if it does.
absl::Status Gone(const EmbedRequest& request) {
  if (request.cancelled && request.cancelled()) return CallerGoneError(/*deadline_passed=*/false);
  if (Clock::now() >= request.deadline) return CallerGoneError(/*deadline_passed=*/true);
  return absl::OkStatus();
}

absl::Status Stopped() {
  return Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown,
               "embedding: the service is stopping: try another one, or this one when it is back");
}

}  // namespace

// A request that was accepted.
struct EmbedBatcher::Pending {
  EmbedRequest request;
  EmbedReply reply;
  Clock::time_point submitted;
  size_t taken = 0;     // sequences; guarded by the batcher's mutex
  size_t embedded = 0;  // sequences; compute thread only

  size_t left() const { return request.sequences.size() - taken; }
};

// One sequence of a batch.
struct EmbedBatcher::Piece {
  std::shared_ptr<Pending> pending;
  size_t index;
  TokenSequence sequence;
};

// A request whose callback has to be called, without the lock.
struct EmbedBatcher::Finished {
  std::shared_ptr<Pending> pending;
  absl::Status status;

  // Nothing the second time: a request may be dropped while its first sequences are in a batch, which then fails.
  void Report() const {
    const auto done = std::exchange(pending->request.done, nullptr);
    if (done == nullptr) return;
    if (status.ok()) {
      done(std::move(pending->reply));
    } else {
      done(status);
    }
  }
};

EmbedBatcher::EmbedBatcher(std::unique_ptr<Embedder> embedder, const BatcherLimits& limits)
    : embedder_(std::move(embedder)),
      queries_{.waiting = {},
               .sequences = FairShare(static_cast<int64_t>(limits.queued_queries_max)),
               .batch_tokens = limits.query_batch_tokens},
      ingest_{.waiting = {},
              .sequences = FairShare(static_cast<int64_t>(limits.queued_ingest_max)),
              .batch_tokens = limits.ingest_batch_tokens},
      thread_([this] { Compute(); }) {}

EmbedBatcher::~EmbedBatcher() { Stop(); }

void EmbedBatcher::Submit(EmbedRequest request) {
  absl::Status refusal;
  if (request.sequences.empty()) return request.done(EmbedReply{});
  {
    MutexLock lock(mutex_);
    Queue& queue = request.priority == EmbedPriority::kQuery ? queries_ : ingest_;
    refusal = WaitForRoom(request, queue);
    if (refusal.ok()) {
      auto pending = std::make_shared<Pending>();
      pending->reply.vectors.resize(request.sequences.size() * embedder_->info().dimension);
      pending->submitted = Clock::now();
      pending->request = std::move(request);
      queue.waiting.Push(pending->request.key, pending);
      work_.NotifyOne();
      return;
    }
  }
  request.done(refusal);
}

absl::Status EmbedBatcher::WaitForRoom(const EmbedRequest& request, Queue& queue) {
  while (!stopping_) {
    if (absl::Status gone = Gone(request); !gone.ok()) {
      ++stats_.dropped;
      return gone;
    }
    const auto count = static_cast<int64_t>(request.sequences.size());
    if (queue.sequences.taken() == 0) {
      queue.sequences.Take(request.key, count);
      return absl::OkStatus();
    }
    if (queue.sequences.TryTake(request.key, count)) return absl::OkStatus();
    if (request.priority == EmbedPriority::kQuery) {
      ++stats_.refused;
      return QueueFullError("the embedder's queue", kRetryAfter);
    }
    room_.WaitUntil(mutex_, std::min(request.deadline, Clock::now() + kCancelPoll));
  }
  return Stopped();
}

void EmbedBatcher::Compute() {
  while (true) {
    std::vector<Finished> dropped;
    std::vector<Piece> batch;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && queries_.waiting.empty() && ingest_.waiting.empty()) work_.Wait(mutex_);
      if (stopping_) break;
      batch = TakeBatch(dropped);
    }
    room_.NotifyAll();
    for (const Finished& finished : dropped) finished.Report();
    if (!batch.empty()) EmbedBatch(std::move(batch));
  }
  FailAll();
}

EmbedBatcher::Queue& EmbedBatcher::NextQueue() {
  const bool ingest_waits = !ingest_.waiting.empty();
  if (queries_.waiting.empty() || (ingest_waits && query_batches_ >= kQueryBatchesInARow)) {
    query_batches_ = 0;
    return ingest_;
  }
  query_batches_ = ingest_waits ? query_batches_ + 1 : 0;
  return queries_;
}

std::vector<EmbedBatcher::Piece> EmbedBatcher::TakeBatch(std::vector<Finished>& dropped) {
  Queue& queue = NextQueue();  // never both kinds in one batch: ingest would make the queries wait for its tokens too
  std::vector<Piece> batch;
  int64_t tokens = 0;
  while (!queue.waiting.empty() && tokens < queue.batch_tokens) {
    const std::shared_ptr<Pending> pending = queue.waiting.Pop();
    const std::string& key = pending->request.key;
    if (absl::Status gone = Gone(pending->request); !gone.ok()) {
      dropped.push_back({pending, gone});
      ++stats_.dropped;
      queue.sequences.Release(key, static_cast<int64_t>(pending->left()));
      continue;
    }
    std::vector<TokenSequence>& sequences = pending->request.sequences;
    if (pending->taken == 0) pending->reply.queue_seconds = Seconds(Clock::now() - pending->submitted);
    const size_t turn_end = pending->taken + std::min(pending->left(), kTurnSequences);
    for (; pending->taken < turn_end && tokens < queue.batch_tokens; ++pending->taken) {
      tokens += static_cast<int64_t>(sequences[pending->taken].size());
      batch.push_back({pending, pending->taken, std::move(sequences[pending->taken])});
      queue.sequences.Release(key);
    }
    if (pending->left() > 0) queue.waiting.Push(key, pending);
  }
  return batch;
}

void EmbedBatcher::EmbedBatch(std::vector<Piece> batch) {
  // Longest first: where texts are padded it wastes least, where threads take them in turn the short ones fill the end.
  std::stable_sort(batch.begin(), batch.end(),
                   [](const Piece& a, const Piece& b) { return a.sequence.size() > b.sequence.size(); });
  std::vector<TokenSequence> sequences;
  uint64_t tokens = 0;
  for (Piece& piece : batch) {
    tokens += piece.sequence.size();
    sequences.push_back(std::move(piece.sequence));
  }
  const auto start = Clock::now();
  const auto vectors = embedder_->Embed(sequences);
  const double seconds = Seconds(Clock::now() - start);
  {
    MutexLock lock(mutex_);
    ++stats_.batches;
    stats_.sequences += sequences.size();
    stats_.tokens += tokens;
    stats_.embed_seconds += seconds;
  }
  if (!vectors.ok()) return FailBatch(batch, vectors.status());

  const size_t dimension = embedder_->info().dimension;
  const Pending* last = nullptr;
  for (size_t i = 0; i < batch.size(); ++i) {
    Pending& pending = *batch[i].pending;
    std::copy_n(vectors->begin() + static_cast<std::ptrdiff_t>(i * dimension), dimension,
                pending.reply.vectors.begin() + static_cast<std::ptrdiff_t>(batch[i].index * dimension));
  }
  // By request again, so that each counts the batch's time once.
  std::stable_sort(batch.begin(), batch.end(), [](const Piece& a, const Piece& b) { return a.pending < b.pending; });
  for (const Piece& piece : batch) {
    Pending& pending = *piece.pending;
    if (&pending != last) pending.reply.embed_seconds += seconds;
    last = &pending;
    if (++pending.embedded == pending.request.sequences.size()) Finished{piece.pending, absl::OkStatus()}.Report();
  }
}

void EmbedBatcher::FailBatch(const std::vector<Piece>& batch, const absl::Status& status) {
  std::vector<std::shared_ptr<Pending>> failed;
  for (const Piece& piece : batch) {
    if (std::find(failed.begin(), failed.end(), piece.pending) == failed.end()) failed.push_back(piece.pending);
  }
  {
    MutexLock lock(mutex_);
    for (Queue* queue : {&queries_, &ingest_}) {
      queue->waiting.RemoveIf([&](const std::shared_ptr<Pending>& pending) {
        if (std::find(failed.begin(), failed.end(), pending) == failed.end()) return false;
        queue->sequences.Release(pending->request.key, static_cast<int64_t>(pending->left()));
        return true;
      });
    }
  }
  room_.NotifyAll();
  for (const std::shared_ptr<Pending>& pending : failed) Finished{pending, status}.Report();
}

void EmbedBatcher::FailAll() {
  std::vector<std::shared_ptr<Pending>> left;
  {
    MutexLock lock(mutex_);
    for (Queue* queue : {&queries_, &ingest_}) {
      while (!queue->waiting.empty()) {
        left.push_back(queue->waiting.Pop());
        queue->sequences.Release(left.back()->request.key, static_cast<int64_t>(left.back()->left()));
      }
    }
  }
  for (const std::shared_ptr<Pending>& pending : left) Finished{pending, Stopped()}.Report();
}

void EmbedBatcher::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  work_.NotifyAll();
  room_.NotifyAll();
  MutexLock lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

BatcherStats EmbedBatcher::stats() const {
  MutexLock lock(mutex_);
  BatcherStats stats = stats_;
  stats.queued_queries = static_cast<size_t>(queries_.sequences.taken());
  stats.queued_ingest = static_cast<size_t>(ingest_.sequences.taken());
  return stats;
}

absl::StatusOr<EmbedReply> EmbedAndWait(EmbedBatcher& batcher, EmbedRequest request) {
  // Shared with the callback: its thread may still be inside set_value when this one goes on.
  auto outcome = std::make_shared<std::promise<absl::StatusOr<EmbedReply>>>();
  request.done = [outcome](absl::StatusOr<EmbedReply> reply) { outcome->set_value(std::move(reply)); };
  batcher.Submit(std::move(request));
  return outcome->get_future().get();
}

}  // namespace retro
