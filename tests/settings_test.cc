#include "common/rpc/settings.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

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

Reading Read(std::vector<std::string> flags = {}) {
  Reading reading;
  CLI::App app("", "program");
  AddServiceSettings(app, reading.settings);
  flags.insert(flags.begin(), "program");
  std::vector<char*> arguments;
  for (std::string& flag : flags) arguments.push_back(flag.data());
  testing::internal::CaptureStderr();
  reading.code =
      ReadSettings(app, "RETRO_TESTED_", reading.settings, static_cast<int>(arguments.size()), arguments.data());
  reading.error = testing::internal::GetCapturedStderr();
  return reading;
}

TEST(SettingsTest, TheEnvironmentSets) {
  const Variable variable("RETRO_TESTED_LOG_LEVEL", "debug");
  const Reading reading = Read();
  EXPECT_EQ(reading.code, std::nullopt) << reading.error;
  EXPECT_EQ(reading.settings.log.level, "debug");
}

TEST(SettingsTest, FlagsWinOverTheEnvironmentAndThatOverTheFile) {
  const std::string file = testing::TempDir() + "settings_test.toml";
  std::ofstream(file) << "log-level = \"error\"\nreflection = false\nstreams-per-connection-max = 7\n";
  const std::string config = "--config=" + file;
  EXPECT_EQ(Read({config}).settings.log.level, "error");
  EXPECT_FALSE(Read({config}).settings.server.reflection);
  const Variable level("RETRO_TESTED_LOG_LEVEL", "debug");
  const Variable reflection("RETRO_TESTED_REFLECTION", "true");
  const Reading reading = Read({config});
  EXPECT_EQ(reading.code, std::nullopt) << reading.error;
  EXPECT_EQ(reading.settings.log.level, "debug");
  EXPECT_TRUE(reading.settings.server.reflection);
  EXPECT_EQ(reading.settings.server.streams_per_connection_max, 7);
  EXPECT_EQ(Read({config, "--log-level", "warning"}).settings.log.level, "warning");
  EXPECT_EQ(Read({"--log-level=warning", "--config", file}).settings.log.level, "warning");
  EXPECT_FALSE(Read({"--no-reflection"}).settings.server.reflection);
  EXPECT_EQ(Read({"--streams-per-connection-max=9", config}).settings.server.streams_per_connection_max, 9);
}

TEST(SettingsTest, AValueThatIsMissingIsNotTakenFromTheNextFlag) {
  for (const std::vector<std::string>& flags : {std::vector<std::string>{"--tls-certificate=", "--api-keys=keys.json"},
                                                {"--tls-certificate", "--api-keys=keys.json"},
                                                {"--api-keys="},
                                                {"--api-keys", ""},
                                                {"--api-keys"},
                                                {"--allow-plaintext-beyond-loopback="},
                                                {"--listen", "--reflection"}}) {
    const Reading reading = Read(flags);
    EXPECT_EQ(reading.code, 2) << flags.front() << reading.settings.api_keys;
    EXPECT_NE(reading.error.find(flags.front().substr(0, flags.front().find('='))), std::string::npos) << reading.error;
  }
  const Variable variable("RETRO_TESTED_API_KEYS", "");
  EXPECT_EQ(Read().code, 2);
}

TEST(SettingsTest, AnEmptyValueInTheFileIsNone) {
  const std::string file = testing::TempDir() + "settings_test_empty.toml";
  for (const char* setting : {"api-keys", "allow-plaintext-beyond-loopback"}) {
    std::ofstream(file) << setting << " = \"\"\n";
    const Reading reading = Read({"--config=" + file});
    EXPECT_EQ(reading.code, 2) << setting;
    EXPECT_NE(reading.error.find(setting), std::string::npos) << reading.error;
  }
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
