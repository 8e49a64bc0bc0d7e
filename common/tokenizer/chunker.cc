#include "common/tokenizer/chunker.h"

#include <algorithm>
#include <cstddef>

#include "common/tokenizer/utf8.h"

namespace retro {
namespace {

constexpr size_t kMaxContinuationBytes = 3;

// The number of the token that ends the chunk which starts at token `first`: the next chunk's first.
size_t EndOfChunk(const std::vector<Token>& tokens, std::string_view text, size_t first, size_t chunk_size) {
  const size_t limit = std::min(first + chunk_size, tokens.size());
  if (limit == tokens.size()) return limit;
  const size_t least = limit - std::min(limit - first - 1, kMaxContinuationBytes);
  for (size_t end = limit; end >= least; --end) {
    if (!IsUtf8Continuation(text[tokens[end].begin])) return end;
  }
  return limit;  // not UTF-8, or a chunk shorter than a character: any cut tiles
}

}  // namespace

std::vector<TextChunk> CutIntoChunks(const Tokenizer& tokenizer, std::string_view text, int chunk_size) {
  const std::vector<Token> tokens = tokenizer.Encode(text);
  const auto size = static_cast<size_t>(std::max(chunk_size, 1));
  std::vector<TextChunk> chunks;
  chunks.reserve(tokens.size() / size + 1);
  for (size_t first = 0; first < tokens.size();) {
    const size_t end = EndOfChunk(tokens, text, first, size);
    TextChunk chunk = {tokens[first].begin, tokens[end - 1].end, {}};
    chunk.tokens.reserve(end - first);
    for (size_t i = first; i < end; ++i) chunk.tokens.push_back(tokens[i].id);
    chunks.push_back(std::move(chunk));
    first = end;
  }
  return chunks;
}

}  // namespace retro
