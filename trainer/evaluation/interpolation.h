// Two ways from before RETRO to let a language model without retrieval read a memory (token_memory.h), whose
// distribution over the next token is mixed with the model's:
//   p(w) = (1 - share) p_model(w) + share p_memory(w), where the memory holds anything; else p_model(w)
// kNN-LM: the memory is the text of a store. Continuous cache: it is the document so far. Share and sharpness are
// chosen on one half of the families of documents and judged on the other, and the other way round, so that every
// document is judged by what was chosen without it and its other versions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/evaluation/evaluated_model.h"
#include "trainer/evaluation/token_memory.h"
#include "trainer/json_header.h"
#include "trainer/token_files.h"

namespace retro {

struct BaselineOptions {
  EvaluationOptions evaluated;
  std::vector<std::string> store;      // prepared folders whose tokens make the kNN-LM's store, the first ones first
  uint64_t store_tokens_max = 500000;  // of a folder that is not taken whole, documents drawn with `seed`
  KnnStore::Options knn;
  int64_t cache_tokens = 2000;
  uint64_t documents_max = 0;
  uint64_t tokens_max = 0;
  uint64_t seed = 1;
};

// Figures of the model alone and of both mixtures, and their bits by document. The judged document, and what is the
// same in the store (SameDocuments), is left out of it. FAILED_PRECONDITION: a store with another tokenizer than the
// model's. INVALID_ARGUMENT: fewer than two families.
absl::StatusOr<HeaderJson> EvaluateBaselines(const EvaluatedModel& evaluated, const BaselineOptions& options,
                                             const Report& report);

}  // namespace retro
