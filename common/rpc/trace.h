// W3C Trace Context (level 1): the header `traceparent`, by which a trace's parts are found in the logs of all services
// that a call went through, and in those of whoever called them.
#pragma once

#include <string>
#include <string_view>

namespace retro {

inline constexpr char kTraceparent[] = "traceparent";

// What a call logs and sends on: the caller's trace with a span of its own. A header that is missing or malformed
// begins a trace (not sampled).
struct Trace {
  std::string trace_id;   // 32 hexadecimal digits
  std::string parent_id;  // 16, of the caller's span; empty at the beginning of a trace
  std::string span_id;    // 16, new
  std::string flags;      // 2, the caller's

  std::string Header() const { return "00-" + trace_id + "-" + span_id + "-" + flags; }
};
Trace ContinueTrace(std::string_view traceparent);

// Of a header that ContinueTrace made.
std::string_view TraceIdOf(std::string_view header);
std::string_view SpanIdOf(std::string_view header);

}  // namespace retro
