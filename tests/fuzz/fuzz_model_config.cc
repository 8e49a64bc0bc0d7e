// Any bytes as a model's config: it is refused, or it is valid and survives being written and read again.
#include "generator_service/model/config.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() { return ReadCorpus("model_config"); }

void FuzzOne(std::string_view input) {
  const auto config = ModelConfigFromJson(input);
  if (!config.ok()) {
    Require(config.status().code() == absl::StatusCode::kInvalidArgument, "refused with another code");
    return;
  }
  Require(ValidateModelConfig(*config).ok(), "a config that is not valid was taken");
  const auto again = ModelConfigFromJson(ModelConfigToJson(*config));
  Require(again.ok() && *again == *config, "a config that was written reads otherwise");
}

}  // namespace retro
