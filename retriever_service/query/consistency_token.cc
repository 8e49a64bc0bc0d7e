#include "retriever_service/query/consistency_token.h"

#include <xxhash.h>

#include "common/base/error.h"

namespace retro {
namespace {

constexpr char kVersion = 1;
constexpr size_t kHeaderBytes = 1 + 8;
constexpr size_t kTokenBytesMax = 256 << 10;  // 4,096 shards fit

std::string Checksum(std::string_view payload) {
  const uint64_t hash = XXH64(payload.data(), payload.size(), 0);
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(hash >> (8 * i));
  return bytes;
}

}  // namespace

std::string EncodeConsistencyToken(const shard::v1::ConsistencyToken& token) {
  const std::string payload = token.SerializeAsString();
  std::string bytes(1, kVersion);
  return bytes.append(Checksum(payload)).append(payload);
}

absl::StatusOr<shard::v1::ConsistencyToken> DecodeConsistencyToken(std::string_view bytes, std::string_view store_id) {
  shard::v1::ConsistencyToken token;
  token.set_store_id(std::string(store_id));
  if (bytes.empty()) return token;
  const bool framed = bytes.size() >= kHeaderBytes && bytes.size() <= kTokenBytesMax && bytes[0] == kVersion;
  const std::string_view payload = framed ? bytes.substr(kHeaderBytes) : std::string_view();
  if (!framed || bytes.substr(1, 8) != Checksum(payload) ||
      !token.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    return FieldError("consistency_token",
                      "these bytes are no token of a retriever; hand back exactly what a reply carried");
  }
  if (token.store_id() != store_id) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kForeignStore,
                 "consistency_token: it is of another store; drop it, or talk to the store that gave it");
  }
  return token;
}

bool Before(const shard::v1::Position& a, const shard::v1::Position& b) {
  return a.epoch() != b.epoch() ? a.epoch() < b.epoch() : a.number() < b.number();
}

void Cover(shard::v1::ConsistencyToken& token, uint32_t shard, const shard::v1::Position& position) {
  for (auto& seen : *token.mutable_positions()) {
    if (seen.shard() != shard) continue;
    if (Before(seen.position(), position)) *seen.mutable_position() = position;
    return;
  }
  auto* seen = token.add_positions();
  seen->set_shard(shard);
  *seen->mutable_position() = position;
}

std::optional<shard::v1::Position> PositionOn(const shard::v1::ConsistencyToken& token, uint32_t shard) {
  for (const auto& seen : token.positions()) {
    if (seen.shard() == shard) return seen.position();
  }
  return std::nullopt;
}

}  // namespace retro
