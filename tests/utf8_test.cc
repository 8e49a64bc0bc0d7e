#include "common/tokenizer/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace retro {
namespace {

TEST(Utf8Test, EveryCharacterComesBack) {
  std::string text;
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    text.clear();
    AppendUtf8(code, text);
    const Utf8Character character = DecodeUtf8(text, 0);
    ASSERT_TRUE(character.valid) << std::hex << static_cast<uint32_t>(code);
    ASSERT_EQ(character.code, code);
    ASSERT_EQ(character.length, static_cast<int>(text.size()));
  }
}

TEST(Utf8Test, WhatIsNoCharacterIsOneInvalidByte) {
  for (const std::string text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3(", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xE2\x82",
        "\xE2\x82(", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    const Utf8Character character = DecodeUtf8(text, 0);
    EXPECT_FALSE(character.valid) << testing::PrintToString(text);
    EXPECT_EQ(character.length, 1);
  }
}

TEST(Utf8Test, SkipAsciiStopsAtTheFirstOtherByte) {
  for (size_t length = 0; length < 40; ++length) {
    const std::string ascii(length, 'x');
    EXPECT_EQ(SkipAscii(ascii, 0), length);
    EXPECT_EQ(SkipAscii(ascii + "\xC3\xA9xxxxxxxxx", 0), length);
    EXPECT_EQ(SkipAscii("\xC3\xA9" + ascii + "\x80", 2), length + 2);
  }
}

}  // namespace
}  // namespace retro
