// Compares WordPiece, uncased and cased, with the ids and ranges that make_cases.py had from PyPI `tokenizers`, and
// checks that SentencePiece gives every line back byte for byte, also with bytes of it broken. Prints the first line
// that differs.
//   tokenizer_parity CASES VOCABULARY MODEL
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/tokenizer/sentencepiece_tokenizer.h"
#include "common/tokenizer/wordpiece.h"

namespace retro {
namespace {

// Reads the cases; past the end it gives zeros and says so in ok().
class CaseReader {
 public:
  explicit CaseReader(std::string_view bytes) : bytes_(bytes) {}

  uint32_t ReadUint32() {
    uint32_t value = 0;
    const std::string_view bytes = ReadBytes(sizeof value);
    if (ok_) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }

  std::string_view ReadBytes(size_t size) {
    ok_ = ok_ && size <= bytes_.size();
    if (!ok_) return {};
    const std::string_view result = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return result;
  }

  // Where one character gave several tokens, the reference repeats its range, and the Tokenizer interface has no
  // overlaps: the later ones begin where the one before ended.
  std::vector<Token> ReadTokens() {
    std::vector<Token> tokens(ok_ ? ReadUint32() : 0);
    uint32_t least = 0;
    for (Token& token : tokens) {
      token.id = static_cast<TokenId>(ReadUint32());
      token.begin = std::max(ReadUint32(), least);
      token.end = std::max(ReadUint32(), token.begin);
      least = token.end;
      if (!ok_) break;
    }
    return tokens;
  }

  bool ok() const { return ok_; }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

bool Same(const std::vector<Token>& a, const std::vector<Token>& b) {
  return std::ranges::equal(
      a, b, [](const Token& x, const Token& y) { return x.id == y.id && x.begin == y.begin && x.end == y.end; });
}

std::string Describe(const std::vector<Token>& tokens) {
  std::string text;
  for (const Token& token : tokens) text += StrCat(" ", token.id, "[", token.begin, ",", token.end, ")");
  return text;
}

void PrintBytes(std::string_view text) {
  std::printf("  text: %.*s\n  bytes:", static_cast<int>(text.size()), text.data());
  for (const char byte : text) std::printf(" %02x", static_cast<unsigned char>(byte));
  std::printf("\n");
}

// Whether tokens tile the text and decode to it.
bool KeepsText(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  uint32_t position = 0;
  for (const Token& token : tokenizer.Encode(text)) {
    if (token.begin != position || token.end <= token.begin) return false;
    position = token.end;
    ids.push_back(token.id);
  }
  return position == text.size() && tokenizer.Decode(ids) == text;
}

std::string BreakBytes(std::string_view text, std::mt19937& random) {
  constexpr size_t kOneByteIn = 8;
  std::string broken(text);
  for (size_t i = 0; i < text.size() / kOneByteIn + 1 && !broken.empty(); ++i) {
    broken[random() % broken.size()] = static_cast<char>(random());
  }
  return broken;
}

struct Tokenizers {
  std::shared_ptr<const Tokenizer> uncased;
  std::shared_ptr<const Tokenizer> cased;
  std::shared_ptr<const Tokenizer> sentencepiece;
};

bool CheckWordPiece(const Tokenizer& tokenizer, const char* kind, std::string_view text,
                    const std::vector<Token>& reference) {
  const std::vector<Token> ours = tokenizer.Encode(text);
  if (Same(ours, reference)) return true;
  std::printf("%s WordPiece differs\n  reference:%s\n  ours:     %s\n", kind, Describe(reference).c_str(),
              Describe(ours).c_str());
  PrintBytes(text);
  return false;
}

bool CheckSentencePiece(const Tokenizer& tokenizer, std::string_view text) {
  if (KeepsText(tokenizer, text)) return true;
  std::printf("SentencePiece does not give the text back\n");
  PrintBytes(text);
  return false;
}

bool CheckAll(const Tokenizers& tokenizers, std::string_view cases) {
  CaseReader reader(cases);
  const uint32_t seed = reader.ReadUint32();
  const uint32_t lines = reader.ReadUint32();
  std::printf("seed %u, %u lines\n", seed, lines);
  std::mt19937 random(seed);
  uint32_t checked = 0;
  for (; checked < lines && reader.ok(); ++checked) {
    const std::string_view text = reader.ReadBytes(reader.ReadUint32());
    const std::vector<Token> uncased = reader.ReadTokens();
    const std::vector<Token> cased = reader.ReadTokens();
    if (!reader.ok()) break;
    if (!CheckWordPiece(*tokenizers.uncased, "uncased", text, uncased) ||
        !CheckWordPiece(*tokenizers.cased, "cased", text, cased) ||
        !CheckSentencePiece(*tokenizers.sentencepiece, text) ||
        !CheckSentencePiece(*tokenizers.sentencepiece, BreakBytes(text, random))) {
      std::printf("in line %u of seed %u\n", checked, seed);
      return false;
    }
  }
  std::printf("%u lines are the same\n", checked);
  return reader.ok() && lines > 0 && checked == lines;
}

int Run(const std::string& cases_path, const std::string& vocabulary_path, const std::string& model_path) {
  const auto cases = ReadFile(cases_path);
  const auto vocabulary = ReadFile(vocabulary_path);
  const auto model = ReadFile(model_path);
  for (const auto* file : {&cases, &vocabulary, &model}) {
    if (file->ok()) continue;
    std::fprintf(stderr, "tokenizer_parity: %s\n", file->status().ToString().c_str());
    return 2;
  }
  const auto uncased = WordPieceTokenizer::Create(*vocabulary, WordPieceTokenizer::Case::kUncased);
  const auto cased = WordPieceTokenizer::Create(*vocabulary, WordPieceTokenizer::Case::kCased);
  const auto sentencepiece = SentencePieceTokenizer::Create(*model);
  if (!uncased.ok() || !cased.ok() || !sentencepiece.ok()) {
    std::fprintf(stderr, "tokenizer_parity: cannot load %s or %s\n", vocabulary_path.c_str(), model_path.c_str());
    return 2;
  }
  return CheckAll({*uncased, *cased, *sentencepiece}, *cases) ? 0 : 1;
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: tokenizer_parity CASES VOCABULARY MODEL\n");
    return 2;
  }
  return retro::Run(argv[1], argv[2], argv[3]);
}
