// Consistency tokens: what a client has seen of a store, as bytes that it hands back. Layout: version (1 byte, 1),
// XXH64 of the payload (8 bytes, little-endian), payload (retro.shard.v1.ConsistencyToken).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

std::string EncodeConsistencyToken(const shard::v1::ConsistencyToken& token);

// "" is a token that has seen nothing. INVALID_ARGUMENT for bytes that are no token, FAILED_PRECONDITION
// (FOREIGN_STORE) for one of another store.
absl::StatusOr<shard::v1::ConsistencyToken> DecodeConsistencyToken(std::string_view bytes, std::string_view store_id);

// Whether a comes before b in a shard's history.
bool Before(const shard::v1::Position& a, const shard::v1::Position& b);

// Makes `token` cover `position` of a shard as well.
void Cover(shard::v1::ConsistencyToken& token, uint32_t shard, const shard::v1::Position& position);

// What it covers of a shard, if anything.
std::optional<shard::v1::Position> PositionOn(const shard::v1::ConsistencyToken& token, uint32_t shard);

}  // namespace retro
