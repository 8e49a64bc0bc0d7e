#include "common/rpc/log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/base/error.h"

namespace retro {
namespace {

std::atomic<bool> json_format{false};

std::string JsonString(std::string_view text) {
  return nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The members of the JSON object of a record: those that LogEvent made, or a plain message as "event".
class JsonMembers : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string_view payload(message.payload.data(), message.payload.size());
    const std::string members = payload.starts_with('"') ? std::string(payload) : "\"event\":" + JsonString(payload);
    out.append(members.data(), members.data() + members.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonMembers>(); }
};

// A text for one line: what comes from outside must not begin another, nor speak to a terminal.
std::string Escaped(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F, which are C2 80 to C2 9F, control terminals as well.
    const bool after_c2 = i > 0 && text[i - 1] == '\xc2' && byte >= 0x80 && byte < 0xa0;
    if (byte < 0x20 || byte == 0x7f || after_c2) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += text[i];
    }
  }
  return line;
}

class TextLine : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string line = Escaped({message.payload.data(), message.payload.size()});
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<TextLine>(); }
};

std::string Line(std::string_view event, std::initializer_list<LogField> fields) {
  std::string line;
  if (json_format) {
    line = "\"event\":" + JsonString(event);
    for (const LogField& field : fields)
      line.append(",").append(JsonString(field.key)).append(":").append(JsonString(field.value));
  } else {
    line = event;
    for (const LogField& field : fields) line.append(" ").append(field.key).append("=").append(field.value);
  }
  return line;
}

}  // namespace

absl::Status StartLogging(const LogOptions& options) {
  const auto level = spdlog::level::from_str(options.level);
  if (level == spdlog::level::off && options.level != "off") {
    return FieldError("--log-level", "must be trace, debug, info, warning or error");
  }
  if (options.format != "text" && options.format != "json") return FieldError("--log-format", "must be text or json");
  auto logger = std::make_shared<spdlog::logger>("retro", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  json_format = options.format == "json";
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (json_format) {
    formatter->add_flag<JsonMembers>('*').set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%*})");
  } else {
    formatter->add_flag<TextLine>('*').set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %*");
  }
  logger->set_formatter(std::move(formatter));
  logger->set_level(level);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

void LogEvent(spdlog::level::level_enum level, std::string_view event, std::initializer_list<LogField> fields) {
  if (spdlog::should_log(level)) spdlog::log(level, "{}", Line(event, fields));
}

void LogAudit(std::initializer_list<LogField> fields) {
  const auto logger = spdlog::default_logger();
  const std::string line = Line("audit", fields);
  const spdlog::details::log_msg record(logger->name(), spdlog::level::info, line);
  for (const auto& sink : logger->sinks()) {
    sink->log(record);
    sink->flush();
  }
}

}  // namespace retro
