// One forward pass of a BERT-family encoder, whatever it runs on. Not part of the public face: see bert_encoder.h.
#pragma once

#include <span>

#include "common/tokenizer/tokenizer.h"

namespace retro {

class BertForward {
 public:
  virtual ~BertForward() = default;

  // Vectors of `sequences` into out [sequences.size(), hidden]: pooled, and normalised where the config says so.
  // The sequences are valid: 1 to max_positions ids, all within the vocabulary. Throws c10::Error, std::bad_alloc.
  virtual void Run(std::span<const std::span<const TokenId>> sequences, float* out) = 0;
};

}  // namespace retro
