// Cuts a document into chunks of m tokens (paper section 2.1: m = 64) whose byte ranges tile it exactly.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/tokenizer/tokenizer.h"

namespace retro {

struct TextChunk {
  uint64_t begin;               // byte range in the document, [begin, end); the first begins at 0, each next one at the last's end
  uint64_t end;
  std::vector<TokenId> tokens;  // chunk_size of them; fewer in the last chunk, and in one that ends before a split character
};

// Cuts between tokens, and never inside a UTF-8 character (byte-fallback tokens split those): a chunk that would end inside one
// ends before it and has up to three tokens less. `tokenizer` must be lossless, `text` valid UTF-8. Empty text: no chunks.
std::vector<TextChunk> CutIntoChunks(const Tokenizer& tokenizer, std::string_view text, int chunk_size);

}  // namespace retro
