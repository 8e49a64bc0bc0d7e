// Weights to begin a training from, or to try the machinery with.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "generator_service/model/config.h"

namespace at {
class Tensor;
}

namespace retro {

// Every weight of the table, a function of its name and the seed alone. Matrices N(0, 1/in), those that write
// into a residual stream smaller by sqrt(2 L); gains 1; biases 0; everything else, as embeddings, N(0, 0.02^2).
// RESOURCE_EXHAUSTED: out of memory.
absl::StatusOr<std::map<std::string, at::Tensor>> RandomWeights(const ModelConfig& config, uint64_t seed);

}  // namespace retro
