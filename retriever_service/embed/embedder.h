// What turns text into vectors, for everything that stores or searches them. Without torch and gRPC.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokenizer/tokenizer.h"

namespace retro {

// Some embedders want queries and stored passages marked by different prefixes.
enum class TextKind { kQuery, kPassage };

// The ids of one text as the model takes them: special tokens and prefix included, cut to the maximal length.
using TokenSequence = std::vector<TokenId>;

struct EmbedderInfo {
  std::string name;         // for people: the folder's name, "hash"
  std::string fingerprint;  // 32 raw bytes; vectors of equal fingerprints may be compared
  int dimension = 0;
  int max_tokens = 0;  // longest TokenSequence
};

// `Encode` and `info` may be called from any thread at any time, `Embed` from one thread at a time: EmbedBatcher's
// compute thread owns it. So texts are split into tokens by whoever brings them, and the compute thread only computes.
class Embedder {
 public:
  virtual ~Embedder() = default;

  virtual const EmbedderInfo& info() const = 0;

  // Never fails: any byte string has an encoding. What is longer than `max_tokens` is cut at its end.
  virtual TokenSequence Encode(std::string_view text, TextKind kind) const = 0;

  // The vectors of `sequences`, row-major [sequences.size(), dimension]. A vector does not depend on what else is in
  // the batch (beyond rounding). INVALID_ARGUMENT for an empty or too long sequence or an id outside the vocabulary.
  virtual absl::StatusOr<std::vector<float>> Embed(std::span<const TokenSequence> sequences) = 0;
};

// The text whose vector is stored beside a collection: a start that finds another one (other number format, device,
// broken library) can tell by how far they are apart.
inline constexpr std::string_view kSelfTestText = "The quick brown fox jumps over the lazy dog, 0123456789 times.";
absl::StatusOr<std::vector<float>> SelfTestVector(Embedder& embedder);

}  // namespace retro
