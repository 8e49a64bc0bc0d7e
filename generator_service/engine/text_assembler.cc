#include "generator_service/engine/text_assembler.h"

#include <algorithm>

namespace retro {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Lead {
  size_t length;  // of the character; 0: no character begins so
  unsigned char second_least;
  unsigned char second_most;
};

// Unicode 15, table 3-7.
Lead ClassifyLead(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

enum class Part { kCharacter, kBroken, kIncomplete };

// The character, or the maximal part of one, at `position`.
Part NextPart(std::string_view bytes, size_t position, size_t* length) {
  const Lead lead = ClassifyLead(static_cast<unsigned char>(bytes[position]));
  *length = 1;
  if (lead.length == 0) return Part::kBroken;
  while (*length < lead.length) {
    if (position + *length == bytes.size()) return Part::kIncomplete;
    const auto byte = static_cast<unsigned char>(bytes[position + *length]);
    const unsigned char least = *length == 1 ? lead.second_least : 0x80;
    const unsigned char most = *length == 1 ? lead.second_most : 0xBF;
    if (byte < least || byte > most) return Part::kBroken;
    ++*length;
  }
  return Part::kCharacter;
}

}  // namespace

std::string Utf8Mender::Append(std::string_view bytes) {
  incomplete_.append(bytes);
  const std::string all = std::move(incomplete_);
  incomplete_.clear();
  std::string text;
  size_t length = 0;
  for (size_t position = 0; position < all.size(); position += length) {
    switch (NextPart(all, position, &length)) {
      case Part::kCharacter:
        text.append(all, position, length);
        break;
      case Part::kBroken:
        text.append(kReplacement);
        break;
      case Part::kIncomplete:
        incomplete_ = all.substr(position);
        return text;
    }
  }
  return text;
}

std::string Utf8Mender::Finish() {
  const bool incomplete = !incomplete_.empty();
  incomplete_.clear();
  return std::string(incomplete ? kReplacement : std::string_view());
}

TextAssembler::Output TextAssembler::Append(std::string_view bytes) {
  held_ += mender_.Append(bytes);
  Output output;
  size_t begin = 0;
  output.stop = FindStop(&begin);
  const size_t certain = output.stop.has_value() ? begin : held_.size() - UncertainLength();
  output.text = held_.substr(0, certain);
  held_.erase(0, certain);
  if (output.stop.has_value()) {
    stopped_ = true;
    held_.clear();
  }
  return output;
}

std::string TextAssembler::Finish() {
  if (stopped_) return "";
  return std::move(held_) + mender_.Finish();
}

std::optional<size_t> TextAssembler::FindStop(size_t* begin) const {
  std::optional<size_t> found;
  size_t found_end = 0;
  for (size_t i = 0; i < stop_strings_.size(); ++i) {
    const size_t at = held_.find(stop_strings_[i]);
    if (at == std::string::npos) continue;
    const size_t end = at + stop_strings_[i].size();
    if (found.has_value() && (end > found_end || (end == found_end && at >= *begin))) continue;
    found = i;
    found_end = end;
    *begin = at;
  }
  return found;
}

size_t TextAssembler::UncertainLength() const {
  size_t longest = 0;
  for (const std::string& stop : stop_strings_) {
    for (size_t length = std::min(held_.size(), stop.size() - 1); length > longest; --length) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, length))) longest = length;
    }
  }
  return longest;
}

std::string_view LongestValidUtf8(std::string_view bytes) {
  std::string_view longest;
  size_t begin = 0;
  size_t length = 0;
  for (size_t position = 0; position < bytes.size(); position += length) {
    if (NextPart(bytes, position, &length) != Part::kCharacter) {
      begin = position + length;
    } else if (position + length - begin > longest.size()) {
      longest = bytes.substr(begin, position + length - begin);
    }
  }
  return longest;
}

}  // namespace retro
