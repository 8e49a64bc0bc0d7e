// Memories of hidden states and the tokens that followed them, which give a second distribution over the next token:
//   p_memory(w) ~ sum over entries with token w of exp(sharpness q.k)
// Keys are hidden states after the last layer, scaled to unit length, so that inner products order as distances do.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace retro {

// T queries, and what their mass is asked for.
struct MemoryQuery {
  at::Tensor hidden;   // [T, d]
  at::Tensor targets;  // [T]
  std::vector<double> sharpness;
};

// The store of a kNN-LM (Khandelwal et al. 2020, arXiv 1911.00172), searched through inverted lists as theirs is:
// entries lie in the list of their nearest centroid, and a query looks through the lists of its nearest ones.
class KnnStore {
 public:
  struct Options {
    int64_t nearest = 256;  // entries that a token is predicted from
    int64_t lists = 1024;   // fewer where there are few entries
    int64_t probed = 48;    // lists that a query looks through; all: exact
    uint64_t seed = 1;      // of the centroids, which are entries drawn
  };

  // Entries of a document, by a number of the caller's. keys: [N, d], scaled here; tokens: [N].
  void Append(const at::Tensor& keys, const at::Tensor& tokens, int64_t document);
  // Once, after the last entry.
  void Build(const Options& options);
  int64_t size() const { return size_; }
  const Options& options() const { return options_; }  // as Build made of them

  // p_memory of each target, one row a sharpness: [sharpness, T]. NaN for a query that sees no entry. Entries of the
  // documents `left_out` are not there.
  at::Tensor TargetMass(const MemoryQuery& query, std::span<const int64_t> left_out) const;

 private:
  struct Found {
    at::Tensor scores;   // [T, nearest], -infinity after the last
    at::Tensor entries;  // [T, nearest]
  };
  Found Nearest(const at::Tensor& hidden, std::span<const int64_t> left_out) const;

  Options options_;
  std::vector<at::Tensor> pieces_[3];     // keys, tokens, documents until Build
  at::Tensor keys_, tokens_, documents_;  // [N, d], [N], [N], list after list
  at::Tensor centroids_;                  // [lists, d]
  std::vector<int64_t> first_;            // entry of each list, and the total
  int64_t size_ = 0;
};

// The continuous cache (Grave et al. 2017, arXiv 1612.04426): the newest tokens of the document itself.
class ContinuousCache {
 public:
  explicit ContinuousCache(int64_t tokens_max) : tokens_max_(tokens_max) {}

  // As KnnStore's, each query seeing the `tokens_max` entries before it; then the queries are entries themselves.
  at::Tensor TargetMassThenAppend(const MemoryQuery& query);

 private:
  int64_t tokens_max_;
  at::Tensor keys_, tokens_;
};

}  // namespace retro
