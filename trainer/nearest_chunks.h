// Third part of `retro-train prepare`: the k nearest chunks of every chunk, exactly, as matrix products on a device.
// Vectors have unit length, so that the largest inner product is the smallest distance (paper section 2.3).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "trainer/chunk_vectors.h"
#include "trainer/data_set.h"
#include "trainer/neighbour_table.h"

namespace retro {

struct TopRows {
  at::Tensor scores;  // [Q, k] fp32, falling; -infinity after the last
  at::Tensor rows;    // [Q, k] int64
};

// The k largest of each row of scores [Q, N].
TopRows LargestOf(const at::Tensor& scores, int64_t k);

// What the databases' vectors may take of the device, as fp32, to be held there throughout; else they are read anew for
// each block of queries. On a CPU at most a quarter of what is available of its memory.
uint64_t ResidentBytesMax(const at::Device& device);

struct NearestOptions {
  int64_t k = 2;
  at::Device device = at::kCPU;
};

// Writes the neighbour table of `data`, whose vectors must be there, like those of all databases; chunks of the query's
// own document are left out. The paths of the databases are recorded relative to the data's folder. Goes on where it
// was killed, and does nothing if the table is there.
absl::Status FindNearestChunks(const DataSet& data, std::span<const DataSet* const> databases,
                               const NearestOptions& options, const Report& report);

}  // namespace retro
