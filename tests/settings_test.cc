#include "common/rpc/settings.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace retro {
namespace {

// The environment of the program for one reading.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* const name_;
};

struct Reading {
  std::optional<int> code;
  std::string error;
  ServiceSettings settings;
};

Reading Read() {
  Reading reading;
  CLI::App app("", "program");
  AddServiceSettings(app, reading.settings);
  std::string program = "program";
  char* arguments[] = {program.data(), nullptr};
  testing::internal::CaptureStderr();
  reading.code = ReadSettings(app, "RETRO_TESTED_", reading.settings, 1, arguments);
  reading.error = testing::internal::GetCapturedStderr();
  return reading;
}

TEST(SettingsTest, TheEnvironmentSets) {
  const Variable variable("RETRO_TESTED_LOG_LEVEL", "debug");
  const Reading reading = Read();
  EXPECT_EQ(reading.code, std::nullopt) << reading.error;
  EXPECT_EQ(reading.settings.log.level, "debug");
}

TEST(SettingsTest, AVariableThatIsNoSettingIsRefused) {
  for (const char* name :
       {"RETRO_TESTED_API_KEY", "RETRO_TESTED_TLS_CERTIFICAT", "RETRO_TESTED_CONFIG", "RETRO_TESTED_"}) {
    const Variable variable(name, "");
    const Reading reading = Read();
    EXPECT_EQ(reading.code, 2) << name;
    EXPECT_NE(reading.error.find(name), std::string::npos) << reading.error;
  }
}

TEST(SettingsTest, WhatKubernetesSetsIsNotOurs) {
  for (const char* name :
       {"RETRO_TESTED_SERVICE_HOST", "RETRO_TESTED_SERVICE_PORT", "RETRO_TESTED_SERVICE_PORT_GRPC", "RETRO_TESTED_PORT",
        "RETRO_TESTED_PORT_7700_TCP", "RETRO_TESTED_PORT_7700_TCP_ADDR", "RETRO_TESTED_OTHER_SERVICE_HOST",
        "RETRO_TESTED_OTHER_PORT_1_UDP_PROTO", "RETRO_TEST_ANYTHING", "RETRO_TESTED"}) {
    const Variable variable(name, "tcp://10.0.0.1:7700");
    const Reading reading = Read();
    EXPECT_EQ(reading.code, std::nullopt) << name << ": " << reading.error;
  }
}

}  // namespace
}  // namespace retro
