// The SentencePiece library without its header, which declares absl::string_view as std's and so cannot be included
// together with an Abseil that has its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}  // namespace sentencepiece

namespace retro {

// A loaded model. Immutable; every method may be called from any thread. Ids given must be in [0, size()).
class SentencePieceLibrary {
 public:
  enum class PieceKind { kText, kByte, kControl, kUnknown };

  // A piece of a text and its byte range there.
  struct Segment {
    int32_t id;
    uint32_t begin;
    uint32_t end;
  };

  // Null and a reason in `error`, which is empty before, if `model` is no model.
  static std::unique_ptr<const SentencePieceLibrary> Load(std::string_view model, std::string* error);
  ~SentencePieceLibrary();

  int size() const;
  const std::string& piece(int id) const;
  PieceKind kind(int id) const;
  int pad_id() const;
  int bos_id() const;
  int eos_id() const;
  int unk_id() const;

  // Empty if the library refuses the text.
  std::vector<int> Encode(std::string_view text) const;
  std::vector<Segment> EncodeWithRanges(std::string_view text) const;
  std::string Decode(const std::vector<int>& ids) const;

 private:
  explicit SentencePieceLibrary(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor);

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace retro
