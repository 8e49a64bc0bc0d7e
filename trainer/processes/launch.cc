#include "trainer/processes/launch.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr int kSizeMax = 65536;
constexpr int kPortMax = 65535;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<int> Number(const char* name, int least, int most) {
  const std::string text = Variable(name);
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number >= least && number <= most) return number;
  return absl::InvalidArgumentError(StrCat("the environment variable ", name, " is \"", text, "\", not a number of ",
                                           least, " to ", most, ": start several processes with torchrun"));
}

}  // namespace

bool StartedByMpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const std::string size = Variable(name);
    if (!size.empty() && size != "1") return true;
  }
  return false;
}

absl::StatusOr<std::optional<Launch>> LaunchOfTorchrun() {
  if (Variable("RANK").empty() && Variable("WORLD_SIZE").empty()) return std::optional<Launch>();
  Launch launch;
  RETRO_ASSIGN_OR_RETURN(launch.size, Number("WORLD_SIZE", 1, kSizeMax));
  RETRO_ASSIGN_OR_RETURN(launch.rank, Number("RANK", 0, launch.size - 1));
  RETRO_ASSIGN_OR_RETURN(launch.local_rank, Number("LOCAL_RANK", 0, launch.size - 1));
  RETRO_ASSIGN_OR_RETURN(const int port, Number("MASTER_PORT", 1, kPortMax));
  launch.port = static_cast<uint16_t>(port);
  launch.address = Variable("MASTER_ADDR");
  if (launch.address.empty()) return absl::InvalidArgumentError("the environment variable MASTER_ADDR is not set");
  launch.served = Variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  launch.key_prefix = StrCat("retro/", Variable("TORCHELASTIC_RESTART_COUNT"), "/");
  return launch;
}

}  // namespace retro
