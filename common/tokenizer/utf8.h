// Strict UTF-8, one character at a time (Unicode 15, section 3.9, table 3-7).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace retro {

struct Utf8Character {
  char32_t code;  // 0 if not valid
  int length;     // bytes; 1 if not valid
  bool valid;     // false for overlong forms, surrogates, codes past U+10FFFF, stray and missing continuation bytes
};

// The character that starts at `position` < text.size().
Utf8Character DecodeUtf8(std::string_view text, size_t position);

// True for 10xxxxxx: a byte that continues a character.
inline bool IsUtf8Continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

void AppendUtf8(char32_t code, std::string& text);

// The position of the first byte at or after `position` that is not ASCII, or text.size().
size_t SkipAscii(std::string_view text, size_t position);

}  // namespace retro
