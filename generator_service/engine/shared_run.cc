#include "generator_service/engine/shared_run.h"

#include <algorithm>
#include <vector>

namespace retro {

int64_t LongestSharedRun(std::span<const TokenId> text, std::span<const TokenId> row, TokenId pad_id) {
  std::vector<TokenId> words;
  words.reserve(row.size());
  std::copy_if(row.begin(), row.end(), std::back_inserter(words), [pad_id](TokenId id) { return id != pad_id; });
  size_t longest = 0;
  for (size_t end = 1; end <= words.size(); ++end) {
    size_t length = 0;
    while (length < end && length < text.size() && words[end - 1 - length] == text[text.size() - 1 - length]) ++length;
    longest = std::max(longest, length);
  }
  return static_cast<int64_t>(longest);
}

}  // namespace retro
