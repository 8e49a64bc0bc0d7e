#include "trainer/event_file.h"

#include <array>
#include <bit>
#include <cstring>

namespace retro {
namespace {

enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

template <typename T>
void AppendLittleEndian(T value, std::string& out) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void AppendKey(uint32_t field, WireType type, std::string& out) { AppendVarint(field << 3 | type, out); }

void AppendBytes(uint32_t field, std::string_view bytes, std::string& out) {
  AppendKey(field, kBytes, out);
  AppendVarint(bytes.size(), out);
  out += bytes;
}

uint32_t MaskedCrc(std::string_view bytes) { return std::rotr(Crc32c(bytes), 15) + 0xa282ead8; }

std::string Record(std::string_view event) {
  std::string record;
  AppendLittleEndian(static_cast<uint64_t>(event.size()), record);
  AppendLittleEndian(MaskedCrc(record), record);
  record += event;
  AppendLittleEndian(MaskedCrc(event), record);
  return record;
}

std::string EventAt(double wall_time_s) {
  std::string event;
  AppendKey(1, kFixed64, event);  // wall_time
  AppendLittleEndian(wall_time_s, event);
  return event;
}

}  // namespace

std::string EventFileHead(double wall_time_s) {
  std::string event = EventAt(wall_time_s);
  AppendBytes(3, "brain.Event:2", event);  // file_version
  return Record(event);
}

std::string ScalarEvent(double wall_time_s, int64_t step,
                        const std::vector<std::pair<std::string_view, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    AppendBytes(1, tag, value);
    AppendKey(2, kFixed32, value);  // simple_value
    AppendLittleEndian(static_cast<float>(number), value);
    AppendBytes(1, value, summary);
  }
  std::string event = EventAt(wall_time_s);
  AppendKey(2, kVarint, event);  // step
  AppendVarint(static_cast<uint64_t>(step), event);
  AppendBytes(5, summary, event);
  return Record(event);
}

uint32_t Crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> made = {};
    for (uint32_t i = 0; i < made.size(); ++i) {
      made[i] = i;
      for (int bit = 0; bit < 8; ++bit) made[i] = made[i] >> 1 ^ ((made[i] & 1) != 0 ? 0x82f63b78 : 0);
    }
    return made;
  }();
  uint32_t crc = 0xffffffff;
  for (const char byte : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<uint8_t>(byte)) & 0xff];
  return ~crc;
}

}  // namespace retro
