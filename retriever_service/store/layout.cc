#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr size_t kSlotBytes = 2;
constexpr size_t kChangeKeyBytes = 16;
constexpr size_t kTombstoneBytes = 4 + 8 + 4;

void AppendNumber(std::string& bytes, uint64_t value, int width) {
  for (int shift = 8 * (width - 1); shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(value >> shift & 0xFF));
}

uint64_t ReadNumber(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

}  // namespace

std::string Encode32(uint32_t value) {
  std::string bytes;
  AppendNumber(bytes, value, 4);
  return bytes;
}

std::string Encode64(uint64_t value) {
  std::string bytes;
  AppendNumber(bytes, value, 8);
  return bytes;
}

std::optional<uint32_t> Decode32(std::string_view bytes) {
  if (bytes.size() != 4) return std::nullopt;
  return static_cast<uint32_t>(ReadNumber(bytes));
}

std::optional<uint64_t> Decode64(std::string_view bytes) {
  if (bytes.size() != 8) return std::nullopt;
  return ReadNumber(bytes);
}

std::string CollectionKey(uint32_t collection) { return Encode32(collection); }
std::string CollectionPrefix(uint32_t collection) { return Encode32(collection); }

std::string SlotPrefix(uint32_t collection, uint32_t slot) {
  std::string key = Encode32(collection);
  AppendNumber(key, slot, kSlotBytes);
  return key;
}

std::string DocumentKey(uint32_t collection, std::string_view document_id) {
  std::string key = SlotPrefix(collection, SlotOfDocument(document_id));
  key.append(document_id);
  return key;
}

std::string AfterPrefix(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xFF') prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

std::string ChunkKey(uint32_t collection, uint64_t chunk_id) {
  std::string key = SlotPrefix(collection, SlotOfChunk(chunk_id));
  AppendNumber(key, chunk_id, 8);
  return key;
}

std::string ChangeKey(const shardpb::Position& position) {
  std::string key = Encode64(position.epoch());
  AppendNumber(key, position.number(), 8);
  return key;
}

std::optional<shardpb::Position> PositionOfKey(std::string_view key) {
  if (key.size() != kChangeKeyBytes) return std::nullopt;
  return MakePosition(ReadNumber(key.substr(0, 8)), ReadNumber(key.substr(8)));
}

std::string EncodeTombstone(const Tombstone& tombstone) {
  std::string value = Encode32(tombstone.collection);
  AppendNumber(value, tombstone.rows.first_chunk_id(), 8);
  AppendNumber(value, tombstone.rows.count(), 4);
  return value;
}

std::optional<Tombstone> DecodeTombstone(std::string_view value) {
  if (value.size() != kTombstoneBytes) return std::nullopt;
  Tombstone tombstone;
  tombstone.collection = static_cast<uint32_t>(ReadNumber(value.substr(0, 4)));
  tombstone.rows.set_first_chunk_id(ReadNumber(value.substr(4, 8)));
  tombstone.rows.set_count(static_cast<uint32_t>(ReadNumber(value.substr(12))));
  return tombstone;
}

}  // namespace retro
