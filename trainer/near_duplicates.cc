#include "trainer/near_duplicates.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <vector>

#include "common/base/status_macros.h"
#include "trainer/document_lines.h"

namespace retro {
namespace {

constexpr size_t kShingleWords = 13;

bool IsWordByte(char byte) { return std::isalnum(static_cast<unsigned char>(byte)) != 0 || (byte & 0x80) != 0; }

std::vector<uint64_t> WordHashes(std::string_view text) {
  std::vector<uint64_t> hashes;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && IsWordByte(text[i])) {
      word.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(text[i]))));
    } else if (!word.empty()) {
      hashes.push_back(std::hash<std::string>()(word));
      word.clear();
    }
  }
  return hashes;
}

// One hash a shingle; a text of fewer words is one shingle.
std::vector<uint64_t> Shingles(std::string_view text) {
  const std::vector<uint64_t> words = WordHashes(text);
  const size_t length = std::min(kShingleWords, words.size());
  std::vector<uint64_t> shingles;
  for (size_t first = 0; length > 0 && first + length <= words.size(); ++first) {
    uint64_t hash = 0;
    for (size_t i = first; i < first + length; ++i) hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15 + (hash >> 29);
    shingles.push_back(hash);
  }
  return shingles;
}

}  // namespace

absl::StatusOr<NearDuplicates> NearDuplicates::Load(const std::string& path) {
  NearDuplicates result;
  RETRO_ASSIGN_OR_RETURN(DocumentLines lines, DocumentLines::Open(path));
  TrainingDocument document;
  while (true) {
    RETRO_ASSIGN_OR_RETURN(const bool more, lines.Next(document));
    if (!more) return result;
    result.Add(document.text);
  }
}

void NearDuplicates::Add(std::string_view text) {
  for (const uint64_t shingle : Shingles(text)) shingles_.insert(shingle);
}

double NearDuplicates::Share(std::string_view text) const {
  const std::vector<uint64_t> shingles = Shingles(text);
  if (shingles.empty()) return 0;
  const auto found = std::ranges::count_if(shingles, [&](uint64_t shingle) { return shingles_.contains(shingle); });
  return static_cast<double>(found) / static_cast<double>(shingles.size());
}

}  // namespace retro
