#include "retriever_service/index/distance.h"

#include <faiss/utils/distances.h>

namespace retro {

void SquaredDistances(std::span<const float> query, const float* vectors, std::span<const uint32_t> rows,
                      float* distances) {
  for (size_t i = 0; i < rows.size(); ++i) {
    distances[i] = faiss::fvec_L2sqr(query.data(), vectors + size_t{rows[i]} * query.size(), query.size());
  }
}

}  // namespace retro
