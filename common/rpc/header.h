// Headers that travel from hop to hop. gRPC takes in whatever bytes come as the value of one, and ends the process of
// whoever sends on what is no text: so each is looked at before it is kept.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace retro {

inline constexpr char kRequestIdHeader[] = "x-request-id";
inline constexpr size_t kRequestIdBytesMax = 128;

// True for what may be sent: visible ASCII characters, at least one.
inline bool IsHeaderValue(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

// True for what is kept of a caller's request id; another call gets a new one.
inline bool IsRequestId(std::string_view text) { return text.size() <= kRequestIdBytesMax && IsHeaderValue(text); }

}  // namespace retro
