#include "common/rpc/log.h"

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
  if (json_format) {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<JsonMembers>('*').set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%*})");
    logger->set_formatter(std::move(formatter));
  } else {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  }
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
