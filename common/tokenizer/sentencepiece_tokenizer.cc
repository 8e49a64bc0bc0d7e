#include "common/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/status/status.h"
#include "common/base/hash.h"
#include "common/base/strings.h"
#include "common/tokenizer/sentencepiece_settings.h"
#include "common/tokenizer/utf8.h"

namespace retro {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581
constexpr char32_t kSpaceSymbolCode = 0x2581;

// The value of a byte piece, "<0x41>"; -1 if the piece is written otherwise.
int ValueOfBytePiece(std::string_view piece) {
  constexpr std::string_view kPrefix = "<0x";
  if (piece.size() != 6 || !piece.starts_with(kPrefix) || piece.back() != '>') return -1;
  int value = -1;
  const char* const end = piece.data() + 5;
  return std::from_chars(piece.data() + kPrefix.size(), end, value, 16).ptr == end ? value : -1;
}

// Appends `piece` with spaces for the symbols that stand for them.
void AppendWithSpaces(std::string_view piece, std::string* text) {
  for (size_t i = 0; i < piece.size();) {
    const bool space = piece.substr(i).starts_with(kSpaceSymbol);
    text->push_back(space ? ' ' : piece[i]);
    i += space ? kSpaceSymbol.size() : 1;
  }
}

// The end of the longest run from `begin` on that the library reads as it is: valid UTF-8 without the space symbol.
size_t EndOfPlainText(std::string_view text, size_t begin) {
  size_t i = SkipAscii(text, begin);
  while (i < text.size()) {
    const Utf8Character character = DecodeUtf8(text, i);
    if (!character.valid || character.code == kSpaceSymbolCode) break;
    i = SkipAscii(text, i + character.length);
  }
  return i;
}

// Where the part of text[begin, end) that starts at `begin` ends; see the header.
size_t EndOfPart(std::string_view text, size_t begin, size_t end) {
  const size_t limit = begin + SentencePieceTokenizer::kMaxPartBytes;
  if (end <= limit) return end;
  for (size_t i = limit; i > begin + 1; --i) {
    if (text[i] == ' ' && text[i - 1] != ' ') return i;
  }
  size_t cut = limit;
  while (IsUtf8Continuation(text[cut])) --cut;
  return cut;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SentencePieceTokenizer>> SentencePieceTokenizer::Create(std::string_view model) {
  if (model.empty()) return absl::InvalidArgumentError("the file is empty");
  std::string error;
  auto library = SentencePieceLibrary::Load(model, &error);
  if (library == nullptr) return absl::InvalidArgumentError(StrCat("not a SentencePiece model: ", error));
  return std::shared_ptr<const SentencePieceTokenizer>(new SentencePieceTokenizer(std::move(library), model));
}

SentencePieceTokenizer::SentencePieceTokenizer(std::unique_ptr<const SentencePieceLibrary> library,
                                               std::string_view model)
    : library_(std::move(library)) {
  FillByteTable();
  const bool all_bytes = std::ranges::find(byte_ids_, kNoToken) == byte_ids_.end();
  lossless_ = all_bytes && ReadSentencePieceSettings(model).KeepsText();
  Sha256 hash;
  hash.UpdateField("sentencepiece");
  hash.UpdateField("");
  hash.UpdateField(model);
  fingerprint_ = hash.Finish();
}

void SentencePieceTokenizer::FillByteTable() {
  byte_ids_.fill(kNoToken);
  table_begin_.push_back(0);
  for (TokenId id = 0; id < library_->size(); ++id) {
    const std::string& piece = library_->piece(id);
    const SentencePieceLibrary::PieceKind kind = library_->kind(id);
    if (kind == SentencePieceLibrary::PieceKind::kByte) {
      if (const int value = ValueOfBytePiece(piece); value >= 0) {
        byte_ids_[value] = id;
        table_.push_back(static_cast<char>(value));
      }
    } else if (kind == SentencePieceLibrary::PieceKind::kText) {
      AppendWithSpaces(piece, &table_);
    }
    table_begin_.push_back(static_cast<uint32_t>(table_.size()));
  }
}

std::string_view SentencePieceTokenizer::BytesOf(TokenId id) const {
  if (id < 0 || id >= vocabulary_size()) return {};
  return std::string_view(table_).substr(table_begin_[id], table_begin_[id + 1] - table_begin_[id]);
}

std::vector<Token> SentencePieceTokenizer::Encode(std::string_view text) const {
  return lossless_ ? EncodeLossless(text) : EncodeWithLibrary(text);
}

std::vector<Token> SentencePieceTokenizer::EncodeLossless(std::string_view text) const {
  std::vector<Token> tokens;
  tokens.reserve(text.size() / 3);
  for (size_t i = 0; i < text.size();) {
    const size_t end = EndOfPlainText(text, i);
    while (i < end) {
      const size_t part_end = EndOfPart(text, i, end);
      EncodePart(text, static_cast<uint32_t>(i), static_cast<uint32_t>(part_end), &tokens);
      i = part_end;
    }
    if (i == text.size()) break;
    const size_t skip_end = i + DecodeUtf8(text, i).length;
    EncodeAsBytes(text, static_cast<uint32_t>(i), static_cast<uint32_t>(skip_end), &tokens);
    i = skip_end;
  }
  return tokens;
}

void SentencePieceTokenizer::EncodePart(std::string_view text, uint32_t begin, uint32_t end,
                                        std::vector<Token>* tokens) const {
  const size_t count_before = tokens->size();
  const std::vector<int> ids = library_->Encode(text.substr(begin, end - begin));
  uint32_t position = begin;
  for (const int id : ids) {
    const std::string_view bytes = BytesOf(id);
    if (bytes.empty() || text.substr(position, bytes.size()) != bytes) break;
    const auto next = static_cast<uint32_t>(position + bytes.size());
    tokens->push_back({id, position, next});
    position = next;
  }
  if (position == end) return;
  // The library gave something else than the text back (a piece of an odd model): bytes are always right.
  tokens->resize(count_before);
  EncodeAsBytes(text, begin, end, tokens);
}

void SentencePieceTokenizer::EncodeAsBytes(std::string_view text, uint32_t begin, uint32_t end,
                                           std::vector<Token>* tokens) const {
  for (uint32_t i = begin; i < end; ++i) {
    tokens->push_back({byte_ids_[static_cast<unsigned char>(text[i])], i, i + 1});
  }
}

std::vector<Token> SentencePieceTokenizer::EncodeWithLibrary(std::string_view text) const {
  const auto size = static_cast<uint32_t>(text.size());
  const std::vector<SentencePieceLibrary::Segment> segments = library_->EncodeWithRanges(text);
  std::vector<Token> tokens;
  tokens.reserve(segments.size());
  uint32_t least = 0;
  for (const auto& [id, segment_begin, segment_end] : segments) {
    const uint32_t begin = std::clamp(segment_begin, least, size);
    const uint32_t end = std::clamp(segment_end, begin, size);
    tokens.push_back({id, begin, end});
    least = end;
  }
  return tokens;
}

std::string SentencePieceTokenizer::Decode(std::span<const TokenId> ids) const {
  std::string text;
  if (lossless_) {
    for (const TokenId id : ids) text += BytesOf(id);
    return text;
  }
  std::vector<int> known;
  for (const TokenId id : ids) {
    const bool in_range = id >= 0 && id < vocabulary_size();
    if (in_range && library_->kind(id) != SentencePieceLibrary::PieceKind::kControl) known.push_back(id);
  }
  return library_->Decode(known);
}

}  // namespace retro
