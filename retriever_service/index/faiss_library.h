// What we use of FAISS: inverted lists of quantised vectors. faiss_library.cc is the only file that
// includes it; its exceptions end there.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace retro {

// An inverted file with codes: rows are sorted into lists by their nearest centroid and held as a few bits a
// coordinate. Finds candidates, whose true distances somebody else must compute. INTERNAL if FAISS throws.
//
// Vectors come in half precision, each as the bytes where it lies. Threads: Search may be called from any number once
// the index was read; it runs on the calling thread alone.
class QuantisedLists {
 public:
  using Append = std::function<absl::Status(std::string_view)>;

  // `kind` in the words of FAISS's index factory, as "IVF1024,PQ192x4fs"; `sample` is what centroids and codes are
  // learnt from, which stays where it is. The result, a function of these alone, is empty. CANCELLED soon after `stop`
  // is set.
  static absl::StatusOr<std::unique_ptr<QuantisedLists>> Train(const std::string& kind, int dimension,
                                                               std::span<const std::string_view> sample, int threads,
                                                               const std::atomic<bool>& stop);
  // Of what Write gave. FAISS trusts what it reads: give it nothing whose checksum was not compared. DATA_LOSS if it is
  // not `rows` vectors of that dimension.
  static absl::StatusOr<std::unique_ptr<QuantisedLists>> Parse(std::string_view bytes, int dimension, uint64_t rows);
  ~QuantisedLists();

  // Numbers them on from 0. Of an index that was trained, not read.
  absl::Status Add(std::span<const std::string_view> vectors, int threads);
  // Its bytes, piece after piece, as FORMAT.md has them. Of an index that was trained, not read.
  absl::Status Write(const Append& append);

  // The nearest by their codes of what is in the `lists_probed` lists that are nearest to each query, in no order; -1
  // fills up where there are fewer.
  //   queries  [n, dimension], finite, and of squares whose sum a float holds
  //   rows     [n, candidates]
  absl::Status Search(std::span<const float> queries, uint32_t lists_probed, uint32_t candidates,
                      std::span<int64_t> rows) const;

  uint32_t lists() const;
  uint64_t memory_bytes() const;  // of what was read; while it is filled, of what it has room for

 private:
  struct Faiss;
  explicit QuantisedLists(std::unique_ptr<Faiss> faiss);
  const std::unique_ptr<Faiss> faiss_;
};

}  // namespace retro
