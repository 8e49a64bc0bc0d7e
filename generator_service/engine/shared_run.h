// Which of a generated text stands word for word in a neighbour.
#pragma once

#include <cstdint>
#include <span>

#include "common/tokenizer/tokenizer.h"

namespace retro {

// Length of the longest run of tokens that ends with the last one of `text` and stands in `row`, a neighbour's N and F
// as the encoder gets them ([2m], each padded with `pad_id` on the right). A run may reach from the end of N into F, as
// the two follow each other in their document; pads are in no run.
int64_t LongestSharedRun(std::span<const TokenId> text, std::span<const TokenId> row, TokenId pad_id);

}  // namespace retro
