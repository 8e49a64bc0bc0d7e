#include "generator_service/engine/token_bytes.h"

#include <vector>

namespace retro {

std::string TokenBytes::Next(TokenId id) {
  const std::optional<TokenId> before = previous_;
  previous_ = id;
  std::string alone = tokenizer_.Decode(std::vector<TokenId>{id});
  if (tokenizer_.lossless() || !before.has_value()) return alone;
  const std::string prefix = tokenizer_.Decode(std::vector<TokenId>{*before});
  const std::string both = tokenizer_.Decode(std::vector<TokenId>{*before, id});
  return both.starts_with(prefix) ? both.substr(prefix.size()) : alone;
}

}  // namespace retro
