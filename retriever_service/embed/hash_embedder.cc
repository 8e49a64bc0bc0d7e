#include "retriever_service/embed/hash_embedder.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/base/hash.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr int kSequenceLength = 2;
constexpr uint64_t kIdMask = (uint64_t{1} << 31) - 1;  // ids are not negative

// SplitMix64 (Steele, Lea & Flood 2014): a full-period generator whose state may be any number.
uint64_t NextRandom(uint64_t& state) {
  state += 0x9E3779B97F4A7C15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

void FillUnitVector(uint64_t seed, std::span<float> vector) {
  float square = 0;
  for (float& value : vector) {
    value = static_cast<float>(NextRandom(seed) >> 40) * 0x1p-23f - 1.0f;
    square += value * value;
  }
  const float scale = square > 0 ? 1.0f / std::sqrt(square) : 0.0f;
  for (float& value : vector) value *= scale;
}

}  // namespace

HashEmbedder::HashEmbedder(int dimension) {
  info_.name = "hash";
  info_.dimension = dimension;
  info_.max_tokens = kSequenceLength;
  info_.fingerprint = Sha256Bytes(StrCat("retro hash embedder, version 1, dimension ", dimension));
}

TokenSequence HashEmbedder::Encode(std::string_view text, TextKind) const {
  uint64_t hash;
  std::memcpy(&hash, Sha256Bytes(text).data(), sizeof(hash));
  return {static_cast<TokenId>(hash & kIdMask), static_cast<TokenId>((hash >> 31) & kIdMask)};
}

absl::StatusOr<std::vector<float>> HashEmbedder::Embed(std::span<const TokenSequence> sequences) {
  const size_t dimension = info_.dimension;
  std::vector<float> vectors(sequences.size() * dimension);
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].size() != kSequenceLength) {
      return absl::InvalidArgumentError(StrCat("hash embedder: sequence ", i, " has ", sequences[i].size(),
                                               " ids, not the ", kSequenceLength, " that Encode makes"));
    }
    const uint64_t seed = static_cast<uint64_t>(sequences[i][0]) << 31 | static_cast<uint64_t>(sequences[i][1]);
    FillUnitVector(seed, {vectors.data() + i * dimension, dimension});
  }
  return vectors;
}

}  // namespace retro
