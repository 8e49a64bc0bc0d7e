// Where the chunks of a sequence lie, and which of them a token may attend to (paper section 2.4, eq. 3).
//
//   m = 4, offset 0:   token      0 1 2 3 4 5 6 7 8 9 ...        m = 4, offset 1:   token      0 1 2 3 4 5 6 ...
//                      chunk      0 0 0 0 1 1 1 1 2 2                               chunk      0 1 1 1 1 2 2
//                      attends    - - - 0 0 0 0 1 1 1                               attends    0 0 0 0 1 1 1
//                      place            0 1 2 3 0 1 2                               place      0 1 2 3 0 1 2
//
// The neighbours of a chunk serve from its last token (whose output predicts the first token of the next chunk) to the
// token before the next chunk's last one. With an offset o the first chunk has o tokens, all others m.
#pragma once

#include <cstdint>

namespace retro {

class ChunkGeometry {
 public:
  // 0 <= offset < chunk_length.
  ChunkGeometry(int64_t chunk_length, int64_t offset)
      : chunk_length_(chunk_length), first_length_(offset > 0 ? offset : chunk_length) {}

  // Chunks are numbered from 0; positions count tokens from 0.
  int64_t Begin(int64_t chunk) const { return chunk == 0 ? 0 : End(chunk - 1); }
  int64_t End(int64_t chunk) const { return first_length_ + chunk * chunk_length_; }
  // Complete chunks among the first `tokens` tokens.
  int64_t CompleteChunks(int64_t tokens) const {
    return tokens < first_length_ ? 0 : 1 + (tokens - first_length_) / chunk_length_;
  }
  // The chunk whose neighbours the token at `position` attends to; -1: none.
  int64_t AttendedChunk(int64_t position) const { return CompleteChunks(position + 1) - 1; }
  // The token's place in the span that attends to `chunk`: 0 ... m-1.
  int64_t Place(int64_t position, int64_t chunk) const { return position - (End(chunk) - 1); }

 private:
  int64_t chunk_length_;
  int64_t first_length_;
};

}  // namespace retro
