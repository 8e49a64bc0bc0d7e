#include "generator_service/engine/text_assembler.h"

#include <gtest/gtest.h>

#include <random>

namespace retro {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

std::string Mend(const std::vector<std::string>& pieces) {
  TextAssembler assembler({});
  std::string text;
  for (const std::string& piece : pieces) text += assembler.Append(piece).text;
  return text + assembler.Finish();
}

std::vector<std::string> Bytes(const std::string& text) {
  std::vector<std::string> bytes;
  bytes.reserve(text.size());
  for (const char c : text) bytes.emplace_back(1, c);
  return bytes;
}

TEST(TextAssemblerTest, CharactersComeWhole) {
  TextAssembler assembler({});
  const std::string emoji = "\xF0\x9F\x98\x80";
  EXPECT_EQ(assembler.Append("a").text, "a");
  EXPECT_EQ(assembler.Append(emoji.substr(0, 1)).text, "");
  EXPECT_EQ(assembler.Append(emoji.substr(1, 2)).text, "");
  EXPECT_EQ(assembler.Append(emoji.substr(3) + "b").text, emoji + "b");
  EXPECT_EQ(assembler.Finish(), "");
}

// What Python's bytes.decode("utf-8", errors="replace") gives.
TEST(TextAssemblerTest, BrokenBytesAreReplacedByMaximalParts) {
  const std::string r = kReplacement;
  EXPECT_EQ(Mend({"a\x80z"}), "a" + r + "z");
  EXPECT_EQ(Mend({"\xF0\x9F\x98z"}), r + "z");           // one part of a character
  EXPECT_EQ(Mend({"\xF0\x80\x80\x80"}), r + r + r + r);  // overlong: no part at all
  EXPECT_EQ(Mend({"\xED\xA0\x80"}), r + r + r);          // surrogate
  EXPECT_EQ(Mend({"\xE2\x82"}), r);                      // cut off at the end
  EXPECT_EQ(Mend({"\xE2\x82\xE2\x82\xAC"}), r + "\xE2\x82\xAC");
  EXPECT_EQ(Mend({"\xF4\x90\x80\x80"}), r + r + r + r);  // past U+10FFFF
  EXPECT_EQ(Mend({"\xC0\xAF\xFF"}), r + r + r);
}

TEST(TextAssemblerTest, TheCutsMakeNoDifference) {
  std::mt19937 random(20240607);
  const std::vector<std::string> parts = {"a",    "é",    "€",        "\xF0\x9F\x98\x80", "\xE2\x82",
                                          "\x80", "\xFF", "\xF0\x9F", "\xED\xA0"};
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += parts[random() % parts.size()];
    EXPECT_EQ(Mend(Bytes(bytes)), Mend({bytes})) << testing::PrintToString(bytes);
  }
}

TEST(TextAssemblerTest, HoldsBackWhatMayBecomeAStopString) {
  TextAssembler assembler({"END", "\n\n"});
  EXPECT_EQ(assembler.Append("abcE").text, "abc");
  EXPECT_EQ(assembler.Append("Nx").text, "ENx");
  EXPECT_EQ(assembler.Append("\n").text, "");
  EXPECT_EQ(assembler.Append("E").text, "\n");
  const auto output = assembler.Append("ND and more");
  EXPECT_EQ(output.text, "");
  ASSERT_TRUE(output.stop.has_value());
  EXPECT_EQ(*output.stop, 0U);
  EXPECT_EQ(assembler.Finish(), "");
}

TEST(TextAssemblerTest, FinishGivesWhatWasHeldBack) {
  TextAssembler assembler({"stop"});
  EXPECT_EQ(assembler.Append("do not sto").text, "do not ");
  EXPECT_EQ(assembler.Finish(), "sto");
}

TEST(TextAssemblerTest, AStopStringInsideACharacterBoundary) {
  TextAssembler assembler({"€"});
  EXPECT_EQ(assembler.Append("1 \xE2").text, "1 ");
  EXPECT_EQ(assembler.Append("\x82").text, "");
  EXPECT_TRUE(assembler.Append("\xAC").stop.has_value());
}

TEST(TextAssemblerTest, TheFirstCompleteStopCountsHoweverTheTextIsCut) {
  // "bc" is complete before "abcd", though that begins earlier.
  const std::vector<std::string> stops = {"abcd", "bc"};
  for (const auto& pieces : {std::vector<std::string>{"xabcdy"}, {"xab", "cdy"}, {"x", "a", "b", "c", "d"}}) {
    TextAssembler assembler(stops);
    std::string text;
    std::optional<size_t> stop;
    for (const std::string& piece : pieces) {
      const auto output = assembler.Append(piece);
      text += output.text;
      stop = output.stop;
      if (stop.has_value()) break;
    }
    EXPECT_EQ(text, "xa");
    EXPECT_EQ(stop, std::optional<size_t>(1));
  }
}

TEST(TextAssemblerTest, ThePromptCannotStop) {
  TextAssembler assembler({"x"});
  EXPECT_EQ(assembler.AppendPrompt("axb"), "axb");
  EXPECT_TRUE(assembler.Append("x").stop.has_value());
}

TEST(TextAssemblerTest, ACharacterMayBeginInThePrompt) {
  TextAssembler assembler({});
  EXPECT_EQ(assembler.AppendPrompt("\xE2\x82"), "");
  EXPECT_EQ(assembler.Append("\xAC").text, "€");
}

TEST(LongestValidUtf8Test, FindsTheLongestStretch) {
  EXPECT_EQ(LongestValidUtf8("abc"), "abc");
  EXPECT_EQ(LongestValidUtf8("\x82\xAC hello \xF0\x9F"), " hello ");
  EXPECT_EQ(LongestValidUtf8("ab\xFFwxyz\xFF"
                             "c"),
            "wxyz");
  EXPECT_EQ(LongestValidUtf8("\xFF\x80"), "");
  EXPECT_EQ(LongestValidUtf8(""), "");
}

}  // namespace
}  // namespace retro
