// The settings inside a SentencePiece model file that decide whether it keeps every byte of a text. The library does
// not show them, and its protobuf classes are not installed; field numbers are those of sentencepiece_model.proto.
#pragma once

#include <string_view>

namespace retro {

struct SentencePieceSettings {
  bool has_normalization_table = false;  // the identity rule has none
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;

  // The text that the library segments is the text that was given.
  bool KeepsText() const {
    return !has_normalization_table && !add_dummy_prefix && !remove_extra_whitespaces && escape_whitespaces;
  }
};

// `model`: the bytes of a model that the library has accepted. A field that is missing has its default; reading stops
// without an error where the bytes make no sense.
SentencePieceSettings ReadSentencePieceSettings(std::string_view model);

}  // namespace retro
