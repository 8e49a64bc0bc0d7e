#include "cli/utf8.h"

#include <cstdint>

#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

uint8_t Byte(std::string_view bytes, size_t at) { return static_cast<uint8_t>(bytes[at]); }

// What may follow a leading byte (Unicode, table 3-7).
struct Lead {
  size_t length = 0;          // of the character; 0 for no leading byte
  uint8_t second_min = 0x80;  // bounds of the second byte; the others are 0x80 ... 0xbf
  uint8_t second_max = 0xbf;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte >= 0xc2 && byte <= 0xdf) return {2};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte >= 0xe1 && byte <= 0xef) return {3};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte >= 0xf1 && byte <= 0xf3) return {4};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {};
}

// Bytes of the character at the front that are right, and whether these are all of it.
struct Match {
  size_t right = 0;
  bool whole = false;
};

Match MatchCharacter(std::string_view bytes) {
  const Lead lead = LeadOf(Byte(bytes, 0));
  if (lead.length == 0) return {};
  size_t right = 1;
  for (; right < lead.length && right < bytes.size(); ++right) {
    const uint8_t least = right == 1 ? lead.second_min : 0x80;
    const uint8_t most = right == 1 ? lead.second_max : 0xbf;
    if (Byte(bytes, right) < least || Byte(bytes, right) > most) return {right, false};
  }
  return {right, right == lead.length};
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    if (Byte(bytes, at) < 0x80) {  // most text, without the table
      ++at;
      continue;
    }
    const Match match = MatchCharacter(bytes.substr(at));
    if (!match.whole) break;
    at += match.right;
  }
  return at;
}

bool IsUtf8Beginning(std::string_view bytes) {
  if (bytes.empty()) return true;
  const Match match = MatchCharacter(bytes);
  return !match.whole && match.right == bytes.size();
}

std::string RepairedUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t valid = ValidUtf8Prefix(bytes);
    text += bytes.substr(0, valid);
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    const Match match = MatchCharacter(bytes);
    text += kReplacement;
    bytes.remove_prefix(match.right > 0 ? match.right : 1);
  }
  return text;
}

absl::Status Utf8Stage::Feed(std::string_view bytes, std::string* text) {
  if (bytes.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("it is binary (it has NUL bytes): convert it to text first");
  }
  if (began_ && rest_.empty()) return Take(bytes, false, text);
  rest_ += bytes;
  if (!began_ && rest_.size() < kByteOrderMark.size() && kByteOrderMark.starts_with(rest_)) return absl::OkStatus();
  const size_t mark = !began_ && std::string_view(rest_).starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  began_ = true;
  const std::string whole = rest_.substr(mark);
  offset_ += mark;
  rest_.clear();
  return Take(whole, false, text);
}

absl::Status Utf8Stage::Finish(std::string* text) {
  const std::string last = std::move(rest_);
  rest_.clear();
  return Take(last, true, text);
}

absl::Status Utf8Stage::Take(std::string_view bytes, bool last, std::string* text) {
  const size_t valid = ValidUtf8Prefix(bytes);
  std::string_view bad = bytes.substr(valid);
  if (bad.empty() || (!last && IsUtf8Beginning(bad))) {
    text->append(bytes.substr(0, valid));
    offset_ += valid;
    rest_ = bad;
    return absl::OkStatus();
  }
  if (!repair_) {
    return absl::InvalidArgumentError(
        StrCat("it is no UTF-8 at byte ", offset_ + valid,
               ": name its encoding with --encoding, or replace what is bad with --repair"));
  }
  // The beginning of a character at the very end waits; everything else is settled.
  size_t waiting = 0;
  for (size_t n = last ? 0 : 3; n > 0 && waiting == 0; --n) {
    if (n <= bytes.size() && IsUtf8Beginning(bytes.substr(bytes.size() - n))) waiting = n;
  }
  text->append(RepairedUtf8(bytes.substr(0, bytes.size() - waiting)));
  offset_ += bytes.size() - waiting;
  rest_ = bytes.substr(bytes.size() - waiting);
  return absl::OkStatus();
}

}  // namespace retro::cli
