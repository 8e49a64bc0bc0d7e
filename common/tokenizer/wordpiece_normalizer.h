// Text to normalised words, as BERT's pre-processing makes them: cleaning, decomposition, case, and splitting at white
// space, punctuation and ideographs. One pass; ASCII takes a short way.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"

namespace retro {

struct SourceRange {
  uint32_t begin;
  uint32_t end;
};

struct NormalizedWord {
  std::string bytes;
  std::vector<SourceRange> sources;  // for each byte, where the character that it came from stands in the text
};

// For one text in one thread.
class WordPieceNormalizer {
 public:
  // `sink` gets each word, never an empty one, and says whether it wants more; it is called only within Normalize.
  WordPieceNormalizer(bool uncased, absl::FunctionRef<bool(const NormalizedWord&)> sink)
      : uncased_(uncased), sink_(sink) {}

  // The words of text[begin, end), with positions in `text`; none reaches over an end.
  void Normalize(std::string_view text, size_t begin, size_t end);

 private:
  // A decomposed character of a combining class other than 0, kept back until the run of such characters can be
  // ordered.
  struct Combining {
    char32_t code;
    int combining_class;
    bool first;          // of its original character's decomposition
    SourceRange source;  // of its original character
  };

  void AddAscii(unsigned char byte, uint32_t position);
  void AddCharacter(char32_t code, SourceRange source);
  void AddCleaned(char32_t code, SourceRange source);
  void AddDecomposed(char32_t code, SourceRange source);
  void FlushCombining();
  void Append(char32_t code, SourceRange source);
  void EmitWord();
  void EndWord();

  const bool uncased_;
  const absl::FunctionRef<bool(const NormalizedWord&)> sink_;
  bool wanted_ = true;
  NormalizedWord word_;
  std::vector<Combining> combining_;
  SourceRange last_source_ = {0, 0};  // of the last original character that came through
};

}  // namespace retro
