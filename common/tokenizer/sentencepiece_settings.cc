#include "common/tokenizer/sentencepiece_settings.h"

#include <cstdint>

namespace retro {
namespace {

// ModelProto
constexpr int kNormalizerSpec = 3;
// NormalizerSpec
constexpr int kPrecompiledCharsmap = 2;
constexpr int kAddDummyPrefix = 3;
constexpr int kRemoveExtraWhitespaces = 4;
constexpr int kEscapeWhitespaces = 5;

// Reads the fields of one message in protobuf's wire format.
class MessageReader {
 public:
  explicit MessageReader(std::string_view bytes) : bytes_(bytes) {}

  // The next field; false at the end, or where the bytes are no message.
  bool Next() {
    uint64_t tag;
    if (!ReadVarint(&tag)) return false;
    field_ = static_cast<int>(tag >> 3);
    payload_ = {};
    switch (tag & 7) {
      case kVarint:
        return ReadVarint(&number_);
      case kFixed64:
        return Take(8);
      case kFixed32:
        return Take(4);
      case kLengthDelimited: {
        uint64_t size;
        return ReadVarint(&size) && Take(size);
      }
      default:
        return false;
    }
  }

  int field() const { return field_; }
  std::string_view payload() const { return payload_; }
  bool flag() const { return number_ != 0; }

 private:
  enum WireType { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };
  static constexpr int kMaxVarintBits = 64;

  bool ReadVarint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < kMaxVarintBits && !bytes_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_.front());
      bytes_.remove_prefix(1);
      *value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool Take(uint64_t size) {
    if (size > bytes_.size()) return false;
    payload_ = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return true;
  }

  std::string_view bytes_;
  int field_ = 0;
  uint64_t number_ = 0;
  std::string_view payload_;
};

void ReadNormalizerSpec(std::string_view message, SentencePieceSettings* settings) {
  for (MessageReader reader(message); reader.Next();) {
    switch (reader.field()) {
      case kPrecompiledCharsmap:
        settings->has_normalization_table = !reader.payload().empty();
        break;
      case kAddDummyPrefix:
        settings->add_dummy_prefix = reader.flag();
        break;
      case kRemoveExtraWhitespaces:
        settings->remove_extra_whitespaces = reader.flag();
        break;
      case kEscapeWhitespaces:
        settings->escape_whitespaces = reader.flag();
        break;
      default:
        break;
    }
  }
}

}  // namespace

SentencePieceSettings ReadSentencePieceSettings(std::string_view model) {
  SentencePieceSettings settings;
  for (MessageReader reader(model); reader.Next();) {
    if (reader.field() == kNormalizerSpec) ReadNormalizerSpec(reader.payload(), &settings);
  }
  return settings;
}

}  // namespace retro
