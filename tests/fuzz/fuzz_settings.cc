// Any bytes as a service's --config file: a bad one is an exit code, a good one is what is in force, line by line.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "common/base/strings.h"
#include "common/rpc/settings.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

namespace {

// Each bad file is a line on standard error.
class Silence {
 public:
  Silence() {
    static const int nowhere = open("/dev/null", O_WRONLY);
    Require(nowhere >= 0 && dup2(nowhere, STDERR_FILENO) == STDERR_FILENO, "no /dev/null");
  }
  ~Silence() {
    dup2(kept_, STDERR_FILENO);
    close(kept_);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  const int kept_ = dup(STDERR_FILENO);
};

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {"listen = 127.0.0.1:7700\nlog-level = \"debug\"\nreflection = false\ndrain-ms-max=20\n",
          "# a comment\n[Serving]\nlisten='x'\n; another\napi-keys = \n", "a.b=c\nlisten=[1,2]\n\"listen\"=\"\\\"\"\n"};
}

void FuzzOne(std::string_view input) {
  static const int file = memfd_create("fuzz", 0);
  const auto size = static_cast<ssize_t>(input.size());
  Require(ftruncate(file, 0) == 0 && pwrite(file, input.data(), input.size(), 0) == size, "no memory file");
  CLI::App app("", "fuzz");
  ServiceSettings settings;
  AddServiceSettings(app, settings);
  std::string program = "fuzz", flag = "--config", path = StrCat("/proc/self/fd/", file);
  char* arguments[] = {program.data(), flag.data(), path.data(), nullptr};
  const std::optional<int> code = [&] {
    const Silence silence;
    return ReadSettings(app, "FUZZ_", settings, 3, arguments);
  }();
  Require(!code.has_value() || *code == 0 || *code == 2, "an exit code that is not documented");
  if (!code.has_value()) static_cast<void>(EffectiveSettings(app));
}

}  // namespace retro
