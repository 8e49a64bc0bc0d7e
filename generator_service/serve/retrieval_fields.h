// The fields of Retrieval that go to the retriever as they are, checked.
#pragma once

#include <chrono>
#include <cstdint>

#include "absl/status/statusor.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

// The most neighbours of a chunk that any server lets a request have.
inline constexpr int64_t kNeighboursMax = 64;

// Everything of a SearchRequest but the queries; where k is not given `k_default`, but no more than `k_max`.
// INVALID_ARGUMENT naming the field.
absl::StatusOr<retriever::v1::SearchRequest> SearchOf(const generator::v1::Retrieval& message, int64_t k_default,
                                                      int64_t k_max);

// retrieval.timeout, 1 ms to 60 s, or the default.
absl::StatusOr<std::chrono::milliseconds> LookupTimeout(const generator::v1::Retrieval& message);

}  // namespace retro
