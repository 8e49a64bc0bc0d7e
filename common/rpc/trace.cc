#include "common/rpc/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <random>

namespace retro {
namespace {

constexpr size_t kTraceAt = 3, kTraceDigits = 32;  // 00-TRACE-SPAN-FLAGS
constexpr size_t kSpanAt = 36, kSpanDigits = 16;
constexpr size_t kFlagsAt = 53, kFlagsDigits = 2;
constexpr size_t kHeaderBytes = kFlagsAt + kFlagsDigits;

uint64_t Random() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random();
}

// Lower-case digits, not all zero unless `zero_is_right`.
bool IsHex(std::string_view text, bool zero_is_right = false) {
  const bool digits =
      std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  return digits && (zero_is_right || text.find_first_not_of('0') != std::string_view::npos);
}

// A later version may have more after the flags.
bool IsTraceparent(std::string_view text) {
  if (text.size() < kHeaderBytes || text[2] != '-' || text[kSpanAt - 1] != '-' || text[kFlagsAt - 1] != '-')
    return false;
  const std::string_view version = text.substr(0, 2);
  if (!IsHex(version, true) || version == "ff") return false;
  if (version == "00" ? text.size() != kHeaderBytes : text.size() > kHeaderBytes && text[kHeaderBytes] != '-') {
    return false;
  }
  return IsHex(text.substr(kTraceAt, kTraceDigits)) && IsHex(text.substr(kSpanAt, kSpanDigits)) &&
         IsHex(text.substr(kFlagsAt, kFlagsDigits), true);
}

}  // namespace

Trace ContinueTrace(std::string_view traceparent) {
  Trace trace;
  trace.span_id = fmt::format("{:016x}", Random() | 1);  // never all zero
  if (IsTraceparent(traceparent)) {
    trace.trace_id = traceparent.substr(kTraceAt, kTraceDigits);
    trace.parent_id = traceparent.substr(kSpanAt, kSpanDigits);
    trace.flags = traceparent.substr(kFlagsAt, kFlagsDigits);
  } else {
    trace.trace_id = fmt::format("{:016x}{:016x}", Random(), Random() | 1);
    trace.flags = "00";
  }
  return trace;
}

std::string_view TraceIdOf(std::string_view header) { return header.substr(kTraceAt, kTraceDigits); }
std::string_view SpanIdOf(std::string_view header) { return header.substr(kSpanAt, kSpanDigits); }

}  // namespace retro
