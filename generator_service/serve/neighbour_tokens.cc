#include "generator_service/serve/neighbour_tokens.h"

#include <algorithm>

#include "common/base/hash.h"
#include "generator_service/engine/text_assembler.h"

namespace retro {
namespace {

namespace pb = ::retro::retriever::v1;

bool WithinVocabulary(const pb::Chunk& chunk, int64_t vocabulary) {
  return std::all_of(chunk.token_ids().begin(), chunk.token_ids().end(),
                     [vocabulary](int32_t id) { return id >= 0 && id < vocabulary; });
}

}  // namespace

bool NeighbourTokens::Fit(bool same_tokenizer, pb::Neighbour* neighbour) {
  bool again = FitChunk(same_tokenizer, shape_.chunk_length, neighbour->mutable_chunk());
  if (neighbour->has_continuation()) {
    const int64_t room = shape_.neighbour_length - shape_.chunk_length;
    again = FitChunk(same_tokenizer, room, neighbour->mutable_continuation()) || again;
  }
  return again;
}

bool NeighbourTokens::FitChunk(bool same_tokenizer, int64_t room, pb::Chunk* chunk) {
  const bool usable = same_tokenizer && (chunk->token_ids_size() > 0 || chunk->text().empty()) &&
                      WithinVocabulary(*chunk, shape_.vocabulary);
  if (!usable) {
    const std::vector<TokenId> ids = Tokenise(chunk->text());
    chunk->mutable_token_ids()->Assign(ids.begin(), ids.end());
  }
  if (chunk->token_ids_size() > room) chunk->mutable_token_ids()->Truncate(static_cast<int>(room));
  return !usable;
}

// As many ids as fit where most do, for what is remembered serves every place of a text.
std::vector<TokenId> NeighbourTokens::Tokenise(std::string_view text) {
  const auto bytes_max = static_cast<size_t>(shape_.neighbour_length * kTextBytesPerTokenMax);
  if (text.size() > bytes_max) text = LongestValidUtf8(text.substr(0, bytes_max));
  const Key key = Sha256Bytes(text);
  {
    MutexLock lock(mutex_);
    if (const auto found = cache_.find(key); found != cache_.end()) {
      uses_.splice(uses_.begin(), uses_, found->second.use);
      return found->second.ids;
    }
  }
  std::vector<TokenId> ids;
  for (const Token& token : tokenizer_.Encode(text)) ids.push_back(token.id);
  const int64_t room = std::max(shape_.chunk_length, shape_.neighbour_length - shape_.chunk_length);
  ids.resize(std::min(ids.size(), static_cast<size_t>(room)));
  MutexLock lock(mutex_);
  if (cache_.contains(key)) return ids;  // somebody else was quicker
  uses_.push_front(key);
  cache_[key] = {ids, uses_.begin()};
  if (cache_.size() > cache_chunks_max_) {
    cache_.erase(uses_.back());
    uses_.pop_back();
  }
  return ids;
}

ChunkNeighbours NeighbourTokens::Rows(const generator::v1::ChunkNeighbours& neighbours) const {
  ChunkNeighbours rows;
  rows.count = neighbours.neighbours_size();
  rows.tokens.assign(static_cast<size_t>(rows.count * shape_.neighbour_length), shape_.pad_id);
  auto row = rows.tokens.begin();
  for (const pb::Neighbour& neighbour : neighbours.neighbours()) {
    std::copy(neighbour.chunk().token_ids().begin(), neighbour.chunk().token_ids().end(), row);
    std::copy(neighbour.continuation().token_ids().begin(), neighbour.continuation().token_ids().end(),
              row + shape_.chunk_length);
    row += shape_.neighbour_length;
  }
  return rows;
}

}  // namespace retro
