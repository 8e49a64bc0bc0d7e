// RETROfit (Borgeaud et al. 2021, section 4.2): a trained plain decoder learns to read neighbours. CCA and encoder are
// new; everything else stays as it is, so that without neighbours the model is, to the bit, the one that it was.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace retro {

// Whether a weight of the table is one of CCA's or of the encoder's.
bool ServesRetrieval(std::string_view weight_name);

// Where CCA and encoder start.
enum class NewWeights {
  kCopying,  // retrieval copies from the start: copying_start.h
  kRandom,
};

struct RetrofitOptions {
  std::string plain;   // folder of a model without CCA
  std::string config;  // JSON file: the plain model's config with CCA and encoder
  std::string data;    // prepared folder that it will be trained on; kCopying listens to the decoder over its text
  std::string out;     // model folder to write: where training starts
  NewWeights new_weights = NewWeights::kCopying;
  int64_t length = 512;  // tokens of a window of that text
  uint64_t seed = 1;     // of what is random, and of the choice of the windows
};

// Leaves a start alone that the same options have made: a run that was killed goes on from the very weights that it
// began with, although sums over the text may be other ones on another machine. INVALID_ARGUMENT if the config is
// another decoder's than the plain model's, or one of them has the wrong form (CheckCanCopy).
absl::Status WriteRetrofitStart(const RetrofitOptions& options);

}  // namespace retro
