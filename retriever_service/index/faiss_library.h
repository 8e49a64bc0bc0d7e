// What we use of FAISS: distances, and inverted lists of quantised vectors. faiss_library.cc is the only file that
// includes it; its exceptions end there.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace retro {

// distances[i] = |query - vectors[rows[i]]|^2, single precision, on the calling thread. A pair's result does not depend
// on what else is computed along with it.
//   query      [dimension]
//   vectors    [*, dimension], row after row
//   distances  [rows.size()]
void SquaredDistances(std::span<const float> query, const float* vectors, std::span<const uint32_t> rows,
                      float* distances);
float SquaredDistance(std::span<const float> query, const float* vector);

// An inverted file with codes: rows are sorted into lists by their nearest centroid and held as a few bits a
// coordinate. Finds candidates, whose true distances somebody else must compute. INTERNAL if FAISS throws.
//
// Threads: Search may be called from any number once nothing is added any more; it runs on the calling thread alone.
class QuantisedLists {
 public:
  // `kind` in the words of FAISS's index factory, as "IVF1024,PQ192x4fs"; `sample` [n, dimension] is what centroids and
  // codes are learnt from. The result, a function of these alone, is empty. CANCELLED soon after `stop` is set.
  static absl::StatusOr<std::unique_ptr<QuantisedLists>> Train(const std::string& kind, int dimension,
                                                               std::span<const float> sample, int threads,
                                                               const std::atomic<bool>& stop);
  // Of what Serialise gave. FAISS trusts what it reads: give it nothing whose checksum was not compared. DATA_LOSS if
  // it is not `rows` vectors of that dimension.
  static absl::StatusOr<std::unique_ptr<QuantisedLists>> Parse(std::string_view bytes, int dimension, uint64_t rows);
  ~QuantisedLists();

  // Numbers them on from 0. `vectors` [n, dimension]
  absl::Status Add(std::span<const float> vectors, int threads);
  absl::StatusOr<std::string> Serialise() const;

  // The nearest by their codes of what is in the `lists_probed` lists that are nearest to each query, in no order; -1
  // fills up where there are fewer.
  //   queries  [n, dimension]
  //   rows     [n, candidates]
  absl::Status Search(std::span<const float> queries, uint32_t lists_probed, uint32_t candidates,
                      std::span<int64_t> rows) const;

  uint32_t lists() const;
  uint64_t memory_bytes() const;

 private:
  struct Faiss;
  explicit QuantisedLists(std::unique_ptr<Faiss> faiss);
  const std::unique_ptr<Faiss> faiss_;
};

}  // namespace retro
