// Two ways from before RETRO to let a language model without retrieval read a memory: a second distribution over the
// next token, from what followed similar hidden states, is mixed with the model's.
//   p(w) = (1 - share) p_model(w) + share p_memory(w),   p_memory(w) ~ sum over entries with token w of exp(sharpness
//   q.k)
// kNN-LM (Khandelwal et al. 2020, arXiv 1911.00172): entries of a text store, the nearest ones alone. Continuous cache
// (Grave et al. 2017, arXiv 1612.04426): entries of the document itself. Keys are the hidden states after the last
// layer, scaled to unit length, so that inner products order as distances do. Share and sharpness are chosen on every
// other document and judged on the rest.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/evaluation/evaluated_model.h"
#include "trainer/json_header.h"
#include "trainer/token_files.h"

namespace retro {

// Hidden states and the tokens that followed them.
class TokenMemory {
 public:
  // Entries of `document` (of the judged text; -1: of none) after those that are there. keys: [T, d], scaled here;
  // tokens: [T].
  void Append(const at::Tensor& keys, const at::Tensor& tokens, int64_t document);
  // The newest `count` entries stay.
  void KeepNewest(int64_t count);
  int64_t size() const { return size_; }

  struct Query {
    at::Tensor hidden;                 // [T, d]
    at::Tensor targets;                // [T]
    int64_t nearest = 0;               // entries with the largest inner products alone; 0: all
    std::optional<int64_t> leave_out;  // entries of this document are not there
    int64_t newest_query = 0;  // the last entries are those of the queries themselves, which see only earlier ones
  };
  // p_memory of each target, one row a sharpness: [sharpness, T]. 0 for a query that sees no entry.
  at::Tensor TargetMass(const Query& query, const std::vector<double>& sharpness) const;

 private:
  struct Block {
    at::Tensor keys;    // [N, d]
    at::Tensor tokens;  // [N]
    int64_t document;
  };
  std::vector<Block> blocks_;
  int64_t size_ = 0;
};

struct BaselineOptions {
  EvaluationOptions evaluated;
  std::vector<std::string> store;      // prepared folders whose tokens make the kNN-LM's store
  uint64_t store_tokens_max = 500000;  // the first ones
  int64_t nearest = 256;
  int64_t cache_tokens = 2000;
  uint64_t documents_max = 0;
  uint64_t tokens_max = 0;
  uint64_t seed = 1;
};

// Figures of the model alone and of both mixtures. FAILED_PRECONDITION: a store with another tokenizer than the
// model's.
absl::StatusOr<HeaderJson> EvaluateBaselines(const EvaluatedModel& evaluated, const BaselineOptions& options,
                                             const Report& report);

}  // namespace retro
