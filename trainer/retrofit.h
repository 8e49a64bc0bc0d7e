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

struct RetrofitOptions {
  std::string plain;   // folder of a model without CCA
  std::string config;  // JSON file: the plain model's config with CCA and encoder
  std::string out;     // model folder to write: where training starts
  uint64_t seed = 1;   // of the new weights that are random
  // Encoder layers start as the decoder's first ones and CCA as the self-attention of its layer, where shapes allow.
  bool from_decoder = false;
};

// A function of its options: written anew it is the same. INVALID_ARGUMENT if the config is another decoder's than the
// plain model's, or either has the wrong form.
absl::Status WriteRetrofitStart(const RetrofitOptions& options);

}  // namespace retro
