#include "common/rpc/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace retro {
namespace {

constexpr char kHostile[] = "one\naudit method=Forged\r\x1b[2J\x7f\xc2\x9b caf\xc3\xa9 \xff";

// What one event and one record of the audit log with the same field look like.
std::string Logged(const std::string& format) {
  EXPECT_TRUE(StartLogging({.level = "info", .format = format}).ok());
  testing::internal::CaptureStderr();
  LogEvent(spdlog::level::info, "request", {{"message", kHostile}});
  LogAudit({{"request", kHostile}});
  spdlog::warn("{} is left aside", kHostile);
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, WhatIsLoggedBeginsNoLineOfItsOwn) {
  const std::string log = Logged("text");
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 3) << log;
  for (const char* control : {"\r", "\x1b", "\x7f", "\xc2\x9b"}) EXPECT_EQ(log.find(control), std::string::npos) << log;
  EXPECT_NE(log.find("request message=one\\x0aaudit method=Forged\\x0d\\x1b[2J\\x7f\xc2\\x9b caf\xc3\xa9"),
            std::string::npos)
      << log;
}

TEST(LogTest, JsonIsOneObjectALine) {
  const std::string log = Logged("json");
  size_t begin = 0;
  int lines = 0;
  for (size_t end; (end = log.find('\n', begin)) != std::string::npos; begin = end + 1, ++lines) {
    const auto object = nlohmann::json::parse(log.substr(begin, end - begin), nullptr, false);
    ASSERT_TRUE(object.is_object()) << log;
  }
  EXPECT_EQ(lines, 3) << log;
}

TEST(LogTest, AnUnknownLevelOrFormatIsRefused) {
  EXPECT_EQ(StartLogging({.level = "loud", .format = "text"}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StartLogging({.level = "info", .format = "xml"}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace retro
