// How a service's process ends by a signal, whatever it is at.
#include "common/rpc/service_main.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <vector>

namespace retro {
namespace {

int RunWith(const std::function<absl::Status()>& serve) {
  CLI::App app("A service.", "retro-service");
  ServiceSettings settings{.server = {.listen = "127.0.0.1:0"}, .metrics_listen = ""};
  std::vector<char*> arguments = {const_cast<char*>("retro-service")};  // NOLINT: as main gets it
  return RunService(
      app, "RETRO_SERVICE_", settings, 1, arguments.data(), [] { return absl::OkStatus(); }, serve);
}

class ServiceMainTest : public testing::TestWithParam<int> {
 protected:
  ServiceMainTest() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

TEST_P(ServiceMainTest, ASignalEndsAServiceThatStillOpens) {
  const auto opens_for_ever = []() -> absl::Status {
    kill(getpid(), GetParam());
    while (true) pause();
  };
  EXPECT_EXIT(std::_Exit(RunWith(opens_for_ever) + 10), testing::ExitedWithCode(0), "");
}

INSTANTIATE_TEST_SUITE_P(Signals, ServiceMainTest, testing::Values(SIGTERM, SIGINT));

}  // namespace
}  // namespace retro
