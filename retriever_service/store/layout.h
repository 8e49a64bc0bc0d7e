// Keys and fixed-size values of the store as bytes; FORMAT.md describes them. Numbers are big-endian, so that the order
// of bytes is the order of numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/hash.h"
#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

inline constexpr uint32_t kLayoutVersion = 1;

// A chunk's id is counter << 12 | slot: it grows, is never reused, and tells where its row is.
inline constexpr int kSlotBits = 12;
static_assert(1u << kSlotBits == kSlotCount);

inline uint64_t MakeChunkId(uint64_t counter, uint32_t slot) { return counter << kSlotBits | slot; }
inline uint32_t SlotOfChunk(uint64_t chunk_id) { return chunk_id & (kSlotCount - 1); }
// The id of the i-th chunk of a document whose first one is `first`: counters are consecutive.
inline uint64_t ChunkIdAt(uint64_t first, uint64_t i) { return first + (i << kSlotBits); }
// The inverse: which chunk of the document it is.
inline uint32_t ChunkNumber(uint64_t first, uint64_t chunk_id) {
  return static_cast<uint32_t>((chunk_id - first) >> kSlotBits);
}

// ---------------------------------------------------------------- positions

inline shardpb::Position MakePosition(uint64_t epoch, uint64_t number) {
  shardpb::Position position;
  position.set_epoch(epoch);
  position.set_number(number);
  return position;
}
// Earlier in a shard's history.
inline bool IsBefore(const shardpb::Position& a, const shardpb::Position& b) {
  return a.epoch() != b.epoch() ? a.epoch() < b.epoch() : a.number() < b.number();
}
// Whether a store at `a` has the change at `b`, unless Store::HasLost. One that came back older leads in a newer epoch,
// with smaller numbers.
inline bool Covers(const shardpb::Position& a, const shardpb::Position& b) {
  return !IsBefore(a, b) && a.number() >= b.number();
}

// ---------------------------------------------------------------- numbers

std::string Encode32(uint32_t value);
std::string Encode64(uint64_t value);
// Nothing unless `bytes` has just the length.
std::optional<uint32_t> Decode32(std::string_view bytes);
std::optional<uint64_t> Decode64(std::string_view bytes);

// ---------------------------------------------------------------- keys

// collections
std::string CollectionKey(uint32_t collection);
// documents
std::string DocumentKey(uint32_t collection, std::string_view document_id);
// What all keys of documents, chunks and vectors in one slot begin with; in a whole collection.
std::string SlotPrefix(uint32_t collection, uint32_t slot);
std::string CollectionPrefix(uint32_t collection);
// The least key after all that begin with the prefix; empty if there is none.
std::string AfterPrefix(std::string prefix);
// chunks, vectors
std::string ChunkKey(uint32_t collection, uint64_t chunk_id);
// changes, tombstones
std::string ChangeKey(const shardpb::Position& position);
std::optional<shardpb::Position> PositionOfKey(std::string_view key);

// ---------------------------------------------------------------- values

// Rows that nothing refers to any more, to be removed once the log no longer holds the change that freed them.
struct Tombstone {
  uint32_t collection;
  shardpb::ChunkRange rows;  // its first id tells the slot
};
std::string EncodeTombstone(const Tombstone& tombstone);
std::optional<Tombstone> DecodeTombstone(std::string_view value);

}  // namespace retro
