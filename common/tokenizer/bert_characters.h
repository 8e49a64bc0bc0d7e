// What BERT's pre-processing knows about single characters, as PyPI `tokenizers` (0.21) sees them. That program draws
// on three Unicode databases of different age; where ours (utf8proc) is newer or older than theirs, tables in the .cc
// say so.
#pragma once

namespace retro {

enum class BertClass {
  kKept,
  kSpace,    // becomes a space, which ends a word
  kRemoved,  // control, format, private use, NUL, U+FFFD: as if it were not there
};

// First step, on the characters as they come.
BertClass ClassifyForBert(char32_t code);

// Ideographs that are words of their own (BERT's list of CJK blocks: no kana, no Hangul).
bool IsBertIdeograph(char32_t code);

// Canonical decomposition (NFD) of one character, before reordering. Writes at most kMaxBertDecomposition codes.
inline constexpr int kMaxBertDecomposition = 8;
int DecomposeForBert(char32_t code, char32_t* decomposed);

// Canonical combining class, by which NFD orders runs of characters whose class is not 0.
int BertCombiningClass(char32_t code);

// Non-spacing marks, which uncased models drop after decomposition.
bool IsBertAccent(char32_t code);

char32_t BertLowerCase(char32_t code);

// Characters that are words of their own after normalisation: ASCII symbols and Unicode punctuation.
bool IsBertPunctuation(char32_t code);

}  // namespace retro
