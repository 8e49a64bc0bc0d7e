// One look-up of the engine on its way to the retriever: what is asked for each of its chunks, what came back, and the
// answer that is made of both and of what the caller gave.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/byte_budget.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/engine/neighbour_source.h"
#include "generator_service/serve/neighbour_tokens.h"
#include "generator_service/serve/retrieval_scope.h"
#include "generator_service/serve/store_view.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// A thread at a time.
class ChunkLookup {
 public:
  // What the retriever said of one chunk.
  struct Reply {
    retriever::v1::QueryResult result;
    std::optional<retriever::v1::SearchTimes> times;
    retriever::v1::Coverage coverage;
  };

  // `request.scope` is a RetrievalScope.
  explicit ChunkLookup(LookupRequest request)
      : request_(std::move(request)), scope_(static_cast<const RetrievalScope&>(*request_.scope)) {}

  const LookupRequest& request() const { return request_; }
  const RetrievalScope& scope() const { return scope_; }

  // Decides what has to be asked for: the text of each chunk that has one, unless the caller gave its neighbours (and
  // does not want them filled up). Once, before all that follows.
  void Prepare(const Tokenizer& tokenizer);
  // The chunks to be asked for, by their place in the request.
  const std::vector<size_t>& asked() const { return asked_; }
  const std::string& text(size_t chunk) const { return slots_[chunk].text; }

  // Each asked chunk gets one of these, once.
  void OnReply(size_t chunk, Reply reply);
  void OnFailure(size_t chunk, const absl::Status& failure);
  // Nothing is outstanding.
  bool complete() const { return outstanding_ == 0; }

  // When complete, once. A failure is an answer too where the scope goes on without: the chunks that were asked for in
  // vain are degraded, and what was given stays. Else the first failure. What was found is held in `budget`, which must
  // outlive it; what finds no room there has failed, RESOURCE_EXHAUSTED.
  absl::StatusOr<LookupAnswer> Answer(NeighbourTokens& tokens, const CollectionView& store, ByteBudget& budget);

 private:
  struct Slot {
    std::string text;  // empty: not asked for
    absl::Status failure;
    std::optional<Reply> reply;
    std::shared_ptr<const HeldBytes> held;  // by what the reply found
  };

  void Hold(Slot& slot, ByteBudget& budget) const;
  FoundNeighbours Found(size_t chunk, NeighbourTokens& tokens, const CollectionView& store);

  const LookupRequest request_;
  const RetrievalScope& scope_;
  std::vector<Slot> slots_;  // by chunk of the request
  std::vector<size_t> asked_;
  size_t outstanding_ = 0;
};

using ChunkLookupPtr = std::shared_ptr<ChunkLookup>;

// A query of a Search call: the chunk of the look-up that it is for.
struct QueryPlace {
  ChunkLookupPtr lookup;
  size_t chunk = 0;
};

// The queries of the look-ups, shared out among calls. Small look-ups with the same search settings and timeout go
// together; a long prompt's goes by itself, so that nobody waits for its many chunks. No call has more than the
// retriever takes.
std::vector<std::vector<QueryPlace>> ShareOutQueries(const std::vector<ChunkLookupPtr>& lookups);

}  // namespace retro
