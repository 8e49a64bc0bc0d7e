#include "common/tokenizer/wordpiece_normalizer.h"

#include <algorithm>
#include <array>

#include "common/tokenizer/bert_characters.h"
#include "common/tokenizer/utf8.h"

namespace retro {
namespace {

enum class AsciiClass : uint8_t { kWord, kSpace, kPunctuation, kRemoved };

AsciiClass ClassifyAscii(char32_t code) {
  switch (ClassifyForBert(code)) {
    case BertClass::kSpace:
      return AsciiClass::kSpace;
    case BertClass::kRemoved:
      return AsciiClass::kRemoved;
    case BertClass::kKept:
      break;
  }
  return IsBertPunctuation(code) ? AsciiClass::kPunctuation : AsciiClass::kWord;
}

const std::array<AsciiClass, 128>& AsciiClasses() {
  static const std::array<AsciiClass, 128> classes = [] {
    std::array<AsciiClass, 128> result;
    for (char32_t code = 0; code < result.size(); ++code) result[code] = ClassifyAscii(code);
    return result;
  }();
  return classes;
}

}  // namespace

void WordPieceNormalizer::Normalize(std::string_view text, size_t begin, size_t end) {
  text = text.substr(0, end);
  for (size_t i = begin; i < end && wanted_;) {
    const auto position = static_cast<uint32_t>(i);
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      AddAscii(byte, position);
      ++i;
      continue;
    }
    const Utf8Character character = DecodeUtf8(text, i);
    i += character.length;
    if (character.valid) AddCharacter(character.code, {position, static_cast<uint32_t>(i)});
  }
  EndWord();
}

void WordPieceNormalizer::AddAscii(unsigned char byte, uint32_t position) {
  const AsciiClass ascii_class = AsciiClasses()[byte];
  if (ascii_class == AsciiClass::kRemoved) return;
  const SourceRange source = {position, position + 1};
  if (ascii_class == AsciiClass::kWord) {
    if (!combining_.empty()) FlushCombining();
    const bool lower = uncased_ && byte >= 'A' && byte <= 'Z';
    word_.bytes.push_back(static_cast<char>(lower ? byte + ('a' - 'A') : byte));
    word_.sources.push_back(source);
  } else {
    EndWord();
    if (ascii_class == AsciiClass::kPunctuation) {
      word_.bytes.push_back(static_cast<char>(byte));
      word_.sources.push_back(source);
      EndWord();
    }
  }
  last_source_ = source;
}

void WordPieceNormalizer::AddCharacter(char32_t code, SourceRange source) {
  switch (ClassifyForBert(code)) {
    case BertClass::kRemoved:
      return;
    case BertClass::kSpace:
      EndWord();
      last_source_ = source;
      return;
    case BertClass::kKept:
      break;
  }
  if (IsBertIdeograph(code)) {
    EndWord();
    AddCleaned(code, source);
    EndWord();
  } else {
    AddCleaned(code, source);
  }
}

void WordPieceNormalizer::AddCleaned(char32_t code, SourceRange source) {
  if (!uncased_) {
    Append(code, source);
    return;
  }
  char32_t decomposed[kMaxBertDecomposition];
  const int count = DecomposeForBert(code, decomposed);
  for (int i = 0; i < count; ++i) {
    const int combining_class = BertCombiningClass(decomposed[i]);
    if (combining_class != 0) {
      combining_.push_back({decomposed[i], combining_class, i == 0, source});
      continue;
    }
    if (!combining_.empty()) FlushCombining();
    last_source_ = source;
    AddDecomposed(decomposed[i], source);
  }
}

void WordPieceNormalizer::AddDecomposed(char32_t code, SourceRange source) {
  if (!IsBertAccent(code)) Append(BertLowerCase(code), source);
}

// The reference does not move ranges when it reorders: the first character of each decomposition, in the new order,
// takes the next original character's range, and the others that of the one before them.
void WordPieceNormalizer::FlushCombining() {
  std::vector<SourceRange> sources;
  for (const Combining& item : combining_) {
    if (item.first) sources.push_back(item.source);
  }
  std::ranges::stable_sort(combining_, {}, &Combining::combining_class);
  size_t next = 0;
  for (const Combining& item : combining_) {
    if (item.first) last_source_ = sources[next++];
    AddDecomposed(item.code, last_source_);
  }
  combining_.clear();
}

void WordPieceNormalizer::Append(char32_t code, SourceRange source) {
  const bool punctuation = IsBertPunctuation(code);
  if (punctuation) EmitWord();
  AppendUtf8(code, word_.bytes);
  word_.sources.resize(word_.bytes.size(), source);
  if (punctuation) EmitWord();
}

void WordPieceNormalizer::EmitWord() {
  if (word_.bytes.empty()) return;
  wanted_ = sink_(word_);
  word_.bytes.clear();
  word_.sources.clear();
}

// A white space or the text's end: nothing that follows can be ordered before what was kept back.
void WordPieceNormalizer::EndWord() {
  if (!combining_.empty()) FlushCombining();
  EmitWord();
}

}  // namespace retro
