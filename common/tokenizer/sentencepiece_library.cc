#include "common/tokenizer/sentencepiece_library.h"

#include <sentencepiece_processor.h>

#include <exception>
#include <utility>

namespace retro {

std::unique_ptr<const SentencePieceLibrary> SentencePieceLibrary::Load(std::string_view model, std::string* error) {
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  try {  // what it builds its tries with throws, of an empty piece for one
    const auto status = processor->LoadFromSerializedProto(model);
    if (!status.ok())
      *error = status.ToString();
    else if (processor->GetPieceSize() == 0 || processor->unk_id() < 0)
      *error = "it has no pieces";
  } catch (const std::exception& exception) {
    *error = exception.what();
  }
  if (!error->empty()) return nullptr;
  return std::unique_ptr<const SentencePieceLibrary>(new SentencePieceLibrary(std::move(processor)));
}

SentencePieceLibrary::SentencePieceLibrary(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor)
    : processor_(std::move(processor)) {}

SentencePieceLibrary::~SentencePieceLibrary() = default;

int SentencePieceLibrary::size() const { return processor_->GetPieceSize(); }
const std::string& SentencePieceLibrary::piece(int id) const { return processor_->IdToPiece(id); }
int SentencePieceLibrary::pad_id() const { return processor_->pad_id(); }
int SentencePieceLibrary::bos_id() const { return processor_->bos_id(); }
int SentencePieceLibrary::eos_id() const { return processor_->eos_id(); }
int SentencePieceLibrary::unk_id() const { return processor_->unk_id(); }

SentencePieceLibrary::PieceKind SentencePieceLibrary::kind(int id) const {
  if (processor_->IsByte(id)) return PieceKind::kByte;
  if (processor_->IsControl(id)) return PieceKind::kControl;
  if (processor_->IsUnknown(id)) return PieceKind::kUnknown;
  return PieceKind::kText;
}

std::vector<int> SentencePieceLibrary::Encode(std::string_view text) const {
  std::vector<int> ids;
  if (!processor_->Encode(text, &ids).ok()) ids.clear();
  return ids;
}

std::vector<SentencePieceLibrary::Segment> SentencePieceLibrary::EncodeWithRanges(std::string_view text) const {
  const sentencepiece::ImmutableSentencePieceText encoding = processor_->EncodeAsImmutableProto(text);
  std::vector<Segment> segments;
  segments.reserve(encoding.pieces_size());
  for (size_t i = 0; i < encoding.pieces_size(); ++i) {
    const auto piece = encoding.pieces(static_cast<int>(i));
    segments.push_back({static_cast<int32_t>(piece.id()), piece.begin(), piece.end()});
  }
  return segments;
}

std::string SentencePieceLibrary::Decode(const std::vector<int>& ids) const {
  std::string text;
  if (!processor_->Decode(ids, &text).ok()) text.clear();
  return text;
}

}  // namespace retro
