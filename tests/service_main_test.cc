// How a service's process ends: by a signal, whatever it is at, and while others' threads still run.
#include "common/rpc/service_main.h"

#include <gtest/gtest.h>
#include <openssl/crypto.h>
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

// gRPC's threads end after main, or never; in OpenSSL they would use, or leave behind, what it has freed.
TEST(ServiceEndTest, OpenSslWorksToTheLast) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // in a process that has not used it yet
  constexpr int kTakenDown = 7;
  EXPECT_EXIT(
      {
        std::atexit(
            [] { std::_Exit(OPENSSL_init_crypto(OPENSSL_INIT_ADD_ALL_DIGESTS, nullptr) == 1 ? 0 : kTakenDown); });
        // What this leaves for the end of the process comes before the above.
        OPENSSL_init_crypto(OPENSSL_INIT_ADD_ALL_DIGESTS, nullptr);
        std::exit(1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace retro
