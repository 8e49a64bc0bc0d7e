#include "common/tokenizer/bert_characters.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>

namespace retro {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// The tables below were found by asking both sides about every code point (utf8proc 2.8: Unicode 15). They hold what
// has been assigned since the reference's databases; gaps that hold no character with the property in question are
// joined.

// Punctuation today that the reference's categories (Unicode 8) do not know.
constexpr Range kUnknownPunctuation[] = {{0x061D, 0x061D},   {0x09FD, 0x0A76},   {0x0C77, 0x0C84},
                                         {0x1B7D, 0x1B7E},   {0x2E43, 0x2E5D},   {0x10EAD, 0x10F89},
                                         {0x1144B, 0x1145D}, {0x11660, 0x116B9}, {0x1183B, 0x11FFF},
                                         {0x12FF1, 0x12FF2}, {0x16E97, 0x16FE2}, {0x1E95E, 0x1E95F}};

// Non-spacing marks today that it does not know, and therefore keeps.
constexpr Range kUnknownMarks[] = {{0x07FD, 0x07FD},   {0x0898, 0x08E1},   {0x09FE, 0x09FE},   {0x0AFA, 0x0AFF},
                                   {0x0B55, 0x0B55},   {0x0C04, 0x0C3C},   {0x0D00, 0x0D00},   {0x0D3B, 0x0D3C},
                                   {0x0D81, 0x0D81},   {0x0EBA, 0x0EBA},   {0x0ECE, 0x0ECE},   {0x180F, 0x1886},
                                   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFB},   {0xA82C, 0xA82C},   {0xA8C5, 0xA8C5},
                                   {0xA8FF, 0xA8FF},   {0xA9BD, 0xA9BD},   {0x10D24, 0x10F85}, {0x11070, 0x11074},
                                   {0x110C2, 0x110C2}, {0x111C9, 0x111C9}, {0x111CF, 0x111CF}, {0x1123E, 0x11241},
                                   {0x1133B, 0x1133B}, {0x11438, 0x1145E}, {0x1182F, 0x13455}, {0x16F4F, 0x16F4F},
                                   {0x16FE4, 0x16FE4}, {0x1CF00, 0x1CF46}, {0x1E000, 0x1E4EF}, {0x1E944, 0x1E94A}};

// Format characters today that it does not know, and therefore keeps.
constexpr Range kUnknownFormats[] = {{0x0890, 0x08E2}, {0x110CD, 0x1343F}};

// Combining characters today that are of class 0 in its decomposition (Unicode 9).
constexpr Range kUnknownCombining[] = {{0x07FD, 0x07FD},   {0x0898, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
                                       {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},
                                       {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10F85}, {0x11070, 0x11070},
                                       {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x11A99}, {0x11D42, 0x11F42},
                                       {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E4EF}};

// Characters that changed sides: a mark that Unicode 8 counted as punctuation, a symbol likewise, a spacing mark that
// was none.
constexpr char32_t kSharadaSandhiMark = 0x111C9;
constexpr char32_t kCanadianSyllabicsChiSign = 0x166D;
constexpr char32_t kHanunooPamudpod = 0x1734;
constexpr char32_t kDivesAkuruSignO = 0x11938;  // has a decomposition since Unicode 13

constexpr Range kIdeographs[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
                                 {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};

bool Contains(std::span<const Range> ranges, char32_t code) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code,
                                      [](char32_t value, const Range& range) { return value < range.first; });
  return after != ranges.begin() && code <= std::prev(after)->last;
}

utf8proc_category_t Category(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

}  // namespace

BertClass ClassifyForBert(char32_t code) {
  if (code == '\t' || code == '\n' || code == '\r') return BertClass::kSpace;
  if (code == 0xFFFD) return BertClass::kRemoved;
  switch (Category(code)) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return BertClass::kSpace;
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CO:
      return BertClass::kRemoved;
    case UTF8PROC_CATEGORY_CF:
      return Contains(kUnknownFormats, code) ? BertClass::kKept : BertClass::kRemoved;
    default:
      return BertClass::kKept;
  }
}

bool IsBertIdeograph(char32_t code) { return code >= kIdeographs[0].first && Contains(kIdeographs, code); }

int DecomposeForBert(char32_t code, char32_t* decomposed) {
  std::array<utf8proc_int32_t, kMaxBertDecomposition> codes;
  const auto input = static_cast<utf8proc_int32_t>(code);
  const utf8proc_ssize_t count = code == kDivesAkuruSignO ? 0
                                                          : utf8proc_decompose_char(input, codes.data(), codes.size(),
                                                                                    UTF8PROC_DECOMPOSE, nullptr);
  if (count <= 0 || count > kMaxBertDecomposition) {
    decomposed[0] = code;
    return 1;
  }
  std::copy_n(codes.begin(), count, decomposed);
  return static_cast<int>(count);
}

int BertCombiningClass(char32_t code) {
  const int combining_class = utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class;
  return combining_class != 0 && Contains(kUnknownCombining, code) ? 0 : combining_class;
}

bool IsBertAccent(char32_t code) {
  if (code == kHanunooPamudpod) return true;
  return Category(code) == UTF8PROC_CATEGORY_MN && !Contains(kUnknownMarks, code);
}

char32_t BertLowerCase(char32_t code) {
  // The reference's lower case knows Unicode 16.
  switch (code) {
    case 0x1C89:
      return 0x1C8A;
    case 0xA7CB:
      return 0x0264;
    case 0xA7CC:
      return 0xA7CD;
    case 0xA7DA:
      return 0xA7DB;
    case 0xA7DC:
      return 0x019B;
    default:
      if (code >= 0x10D50 && code <= 0x10D65) return code + 0x20;
      return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
  }
}

bool IsBertPunctuation(char32_t code) {
  if (code < 0x80) {
    return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') || (code >= '[' && code <= '`') ||
           (code >= '{' && code <= '~');
  }
  switch (Category(code)) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return !Contains(kUnknownPunctuation, code);
    default:
      return code == kSharadaSandhiMark || code == kCanadianSyllabicsChiSign;
  }
}

}  // namespace retro
