// Neighbours as they come from the retriever, made into rows of the model's own tokens. Where the collection has the
// model's tokenizer its ids are taken as they are; from another one N and F are tokenised again, each by itself, as the
// place where N ends and F begins means something to the encoder.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/sync.h"
#include "common/tokenizer/tokenizer.h"
#include "generator_service/model/neighbours.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

// Bytes of text that are tokenised for a token at most: no piece of a vocabulary is anywhere near as long.
inline constexpr int64_t kTextBytesPerTokenMax = 256;

struct NeighbourShape {
  int64_t chunk_length = 64;       // m: room for N
  int64_t neighbour_length = 128;  // r: the rest of it is room for F
  int64_t vocabulary = 0;
  TokenId pad_id = 0;
};

// Any thread.
class NeighbourTokens {
 public:
  // `tokenizer` must outlive this. At most `cache_chunks_max` texts that had to be tokenised again are remembered.
  NeighbourTokens(const Tokenizer& tokenizer, const NeighbourShape& shape, size_t cache_chunks_max)
      : tokenizer_(tokenizer), shape_(shape), cache_chunks_max_(cache_chunks_max) {}

  // Makes the ids in `neighbour` the model's own, cut to what the encoder takes; its text stays, of which so much is
  // tokenised as can fit. `same_tokenizer`: its ids are the model's already. True if it had to be tokenised again.
  bool Fit(bool same_tokenizer, retriever::v1::Neighbour* neighbour);

  // Rows [count, r] of neighbours that fit.
  ChunkNeighbours Rows(const generator::v1::ChunkNeighbours& neighbours) const;

 private:
  // SHA-256 of the text: chunk ids name other texts once a store was put back to an earlier state.
  using Key = std::string;
  struct Remembered {
    std::vector<TokenId> ids;
    std::list<Key>::iterator use;
  };

  bool FitChunk(bool same_tokenizer, int64_t room, retriever::v1::Chunk* chunk);
  std::vector<TokenId> Tokenise(std::string_view text);

  const Tokenizer& tokenizer_;
  const NeighbourShape shape_;
  const size_t cache_chunks_max_;
  Mutex mutex_;
  std::map<Key, Remembered> cache_ ABSL_GUARDED_BY(mutex_);
  std::list<Key> uses_ ABSL_GUARDED_BY(mutex_);  // most recent first
};

}  // namespace retro
