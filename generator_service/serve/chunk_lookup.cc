#include "generator_service/serve/chunk_lookup.h"

#include <map>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/unary.h"
#include "generator_service/engine/text_assembler.h"

namespace retro {
namespace {

namespace pb = ::retro::retriever::v1;

constexpr size_t kQueriesMax = 256;      // of a Search call, as the retriever has it
constexpr size_t kQueriesSharedMax = 8;  // of a look-up that shares a call with others
static_assert(kQueriesSharedMax <= kQueriesMax);

}  // namespace

void ChunkLookup::Prepare(const Tokenizer& tokenizer) {
  slots_.resize(request_.chunks.size());
  for (size_t i = 0; i < slots_.size(); ++i) {
    const ChunkQuery& chunk = request_.chunks[i];
    if (scope_.given.contains(chunk.chunk) && !scope_.append) continue;
    const std::string bytes = tokenizer.Decode(chunk.tokens);
    slots_[i].text = LongestValidUtf8(bytes);
    if (!slots_[i].text.empty()) asked_.push_back(i);
  }
  outstanding_ = asked_.size();
}

void ChunkLookup::OnReply(size_t chunk, Reply reply) {
  slots_[chunk].reply = std::move(reply);
  --outstanding_;
}

void ChunkLookup::OnFailure(size_t chunk, const absl::Status& failure) {
  slots_[chunk].failure = failure;
  --outstanding_;
}

void ChunkLookup::Hold(Slot& slot, ByteBudget& budget) const {
  if (!slot.reply.has_value()) return;
  auto held = std::make_shared<HeldBytes>(budget, scope_.key);
  if (held->TryAdd(slot.reply->result.ByteSizeLong())) {
    slot.held = std::move(held);
  } else {
    slot.failure = UnaryRunner::MemoryFullError();
    slot.reply.reset();
  }
}

absl::StatusOr<LookupAnswer> ChunkLookup::Answer(NeighbourTokens& tokens, const CollectionView& store,
                                                 ByteBudget& budget) {
  LookupAnswer answer;
  answer.asked = !asked_.empty();
  for (size_t i = 0; i < slots_.size(); ++i) {
    Hold(slots_[i], budget);
    absl::Status failure = slots_[i].failure;
    if (!failure.ok() && !scope_.go_on_without) {
      slots_.clear();  // and so what others hold
      return failure;
    }
    FoundNeighbours& found = answer.chunks.emplace_back(Found(i, tokens, store));
    if (failure.ok()) continue;
    found.degradation = DegradationOf(failure);
    found.degradation_message = std::string(MessageOf(failure));
  }
  return answer;
}

FoundNeighbours ChunkLookup::Found(size_t chunk, NeighbourTokens& tokens, const CollectionView& store) {
  FoundNeighbours found;
  auto shown = std::make_shared<ShownNeighbours>();
  const int64_t number = request_.chunks[chunk].chunk;
  if (const auto given = scope_.given.find(number); given != scope_.given.end()) shown->message = given->second;
  shown->message.set_chunk_number(static_cast<uint32_t>(number));
  if (std::optional<Reply>& reply = slots_[chunk].reply; reply.has_value()) {
    for (pb::Neighbour& neighbour : *reply->result.mutable_neighbours()) {
      if (shown->message.neighbours_size() >= static_cast<int>(scope_.search.k())) break;
      if (tokens.Fit(store.same_tokenizer, &neighbour)) ++found.retokenised;
      *shown->message.add_neighbours() = std::move(neighbour);
    }
    shown->times = reply->times;
    shown->held = std::move(slots_[chunk].held);
    if (reply->coverage.shards_answered() < reply->coverage.shards_asked()) {
      found.degradation = Degradation::kPartialCoverage;
      found.degradation_message =
          StrCat(reply->coverage.shards_answered(), " of ", reply->coverage.shards_asked(), " shards answered");
    }
  }
  found.rows = tokens.Rows(shown->message);
  found.details = std::move(shown);
  return found;
}

std::vector<std::vector<QueryPlace>> ShareOutQueries(const std::vector<ChunkLookupPtr>& lookups) {
  std::vector<std::vector<QueryPlace>> calls;
  std::map<std::pair<std::string_view, std::chrono::milliseconds>, size_t> shared;  // the call that has room
  for (const ChunkLookupPtr& lookup : lookups) {
    const std::vector<size_t>& asked = lookup->asked();
    if (asked.empty()) continue;
    size_t call = calls.size();
    if (asked.size() <= kQueriesSharedMax) {
      size_t& open = shared.try_emplace({lookup->scope().search_key, lookup->scope().timeout_ms}, call).first->second;
      if (open < calls.size() && calls[open].size() + asked.size() > kQueriesMax) open = calls.size();
      call = open;
    }
    if (call == calls.size()) calls.emplace_back();
    for (const size_t chunk : asked) {
      if (calls[call].size() == kQueriesMax) {
        call = calls.size();
        calls.emplace_back();
      }
      calls[call].push_back({lookup, chunk});
    }
  }
  return calls;
}

}  // namespace retro
