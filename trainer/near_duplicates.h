// Which texts repeat another text: by the shingles of 13 words that they share, case and punctuation apart (Lee et al.
// 2021, Deduplicating Training Data; Brown et al. 2020, appendix C, for the length).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>

#include "absl/status/statusor.h"

namespace retro {

class NearDuplicates {
 public:
  // The texts of a .jsonl file (also .gz, .zst) whose repetitions are looked for.
  static absl::StatusOr<NearDuplicates> Load(const std::string& path);

  void Add(std::string_view text);
  // The share of the shingles of `text` that occur in the texts added: 0 ... 1.
  double Share(std::string_view text) const;

 private:
  std::unordered_set<uint64_t> shingles_;
};

}  // namespace retro
