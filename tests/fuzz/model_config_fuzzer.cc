// Any bytes as a model's config: it is refused, or it is valid and survives being written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "generator_service/model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = retro::ModelConfigFromJson(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!config.ok()) {
    if (config.status().code() != absl::StatusCode::kInvalidArgument) std::abort();
    return 0;
  }
  const auto again = retro::ModelConfigFromJson(retro::ModelConfigToJson(*config));
  if (!retro::ValidateModelConfig(*config).ok() || !again.ok() || !(*again == *config)) std::abort();
  return 0;
}
