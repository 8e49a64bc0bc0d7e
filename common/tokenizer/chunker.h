// Cuts a document into chunks of m tokens (paper section 2.1: m = 64) whose byte ranges tile it exactly.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/tokenizer/tokenizer.h"

namespace retro {

struct TextChunk {
  // Byte range in the document, [begin, end); the first begins at 0, each next one at the last's end.
  uint64_t begin;
  uint64_t end;
  // chunk_size of them; fewer in the last chunk, and in one that ends before a split character.
  std::vector<TokenId> tokens;
};

// Cuts between tokens, and never inside a UTF-8 character (byte-fallback tokens split those): a chunk that would end
// inside one ends before it and has up to three tokens less. `tokenizer` must be lossless, `text` valid UTF-8,
// `chunk_size` at least 4. Text that is not UTF-8 is tiled as well, but its characters may be cut. Empty text: no
// chunks.
std::vector<TextChunk> CutIntoChunks(const Tokenizer& tokenizer, std::string_view text, int chunk_size);

}  // namespace retro
