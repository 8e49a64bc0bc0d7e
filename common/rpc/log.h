// Structured logs over spdlog, as text for people or one JSON object a line for machines. An event is one line in both:
// control characters in what it says are written as \xNN or as JSON has it. Any thread.
#pragma once

#include <spdlog/spdlog.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace retro {

struct LogOptions {
  std::string level = "info";   // trace, debug, info, warning, error
  std::string format = "text";  // text or json
};

// Sets spdlog's default logger, which writes to standard error. INVALID_ARGUMENT for an unknown level or format.
absl::Status StartLogging(const LogOptions& options);

struct LogField {
  std::string_view key;
  std::string value;
};

// An event with fields: `request method=Search code=OK` or {"event":"request","method":"Search",...}.
void LogEvent(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields);

// An event "audit", whatever the level of the log is.
void LogAudit(std::initializer_list<LogField> fields);

}  // namespace retro
