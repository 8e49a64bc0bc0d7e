// The fields of Retrieval that go to the retriever as they are, checked.
#pragma once

#include <chrono>

#include "absl/status/statusor.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

// Everything of a SearchRequest but the queries; `k_default` where none is given. INVALID_ARGUMENT naming the field.
absl::StatusOr<retriever::v1::SearchRequest> SearchOf(const generator::v1::Retrieval& message, int64_t k_default);

// retrieval.timeout, 1 ms to 60 s, or the default.
absl::StatusOr<std::chrono::milliseconds> LookupTimeout(const generator::v1::Retrieval& message);

}  // namespace retro
