#include "common/tokenizer/utf8.h"

#include <cstdint>
#include <cstring>

namespace retro {
namespace {

constexpr Utf8Character kInvalid = {0, 1, false};

// Length of the character that `lead` starts and its smallest code, which tells overlong forms; length 0: no lead byte.
struct LeadByte {
  int length;
  char32_t bits;
  char32_t smallest;
};

LeadByte DecodeLead(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {2, lead & 0x1Fu, 0x80};
  if (lead >= 0xE0 && lead <= 0xEF) return {3, lead & 0x0Fu, 0x800};
  if (lead >= 0xF0 && lead <= 0xF4) return {4, lead & 0x07u, 0x10000};
  return {0, 0, 0};
}

}  // namespace

Utf8Character DecodeUtf8(std::string_view text, size_t position) {
  const auto first = static_cast<unsigned char>(text[position]);
  if (first < 0x80) return {first, 1, true};
  const LeadByte lead = DecodeLead(first);
  if (lead.length == 0 || text.size() - position < static_cast<size_t>(lead.length)) return kInvalid;
  char32_t code = lead.bits;
  for (int i = 1; i < lead.length; ++i) {
    const char byte = text[position + i];
    if (!IsUtf8Continuation(byte)) return kInvalid;
    code = code << 6 | (static_cast<unsigned char>(byte) & 0x3Fu);
  }
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < lead.smallest || surrogate || code > 0x10FFFF) return kInvalid;
  return {code, lead.length, true};
}

void AppendUtf8(char32_t code, std::string& text) {
  if (code < 0x80) {
    text.push_back(static_cast<char>(code));
    return;
  }
  if (code < 0x800) {
    text.push_back(static_cast<char>(0xC0 | code >> 6));
  } else {
    if (code < 0x10000) {
      text.push_back(static_cast<char>(0xE0 | code >> 12));
    } else {
      text.push_back(static_cast<char>(0xF0 | code >> 18));
      text.push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    }
    text.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
  }
  text.push_back(static_cast<char>(0x80 | (code & 0x3F)));
}

size_t SkipAscii(std::string_view text, size_t position) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  for (uint64_t word; position + sizeof word <= text.size(); position += sizeof word) {
    std::memcpy(&word, text.data() + position, sizeof word);
    if ((word & kHighBits) != 0) break;
  }
  while (position < text.size() && static_cast<unsigned char>(text[position]) < 0x80) ++position;
  return position;
}

}  // namespace retro
