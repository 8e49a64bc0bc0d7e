// Squared L2 distances. FAISS behind distance.cc, the only file that includes it.
#pragma once

#include <cstdint>
#include <span>

namespace retro {

// distances[i] = |query - vectors[rows[i]]|^2, single precision, on the calling thread. A pair's result does not depend
// on what else is computed along with it.
//   query      [dimension]
//   vectors    [*, dimension], row after row
//   distances  [rows.size()]
void SquaredDistances(std::span<const float> query, const float* vectors, std::span<const uint32_t> rows,
                      float* distances);

}  // namespace retro
