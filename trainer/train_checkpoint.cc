#include "trainer/train_checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <charconv>
#include <filesystem>
#include <map>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "common/torch/torch_status.h"
#include "generator_service/checkpoints/tensor_io.h"

namespace retro {
namespace {

constexpr char kFormat[] = "retro-train-checkpoint 1";
constexpr char kStepsTaken[] = "steps_taken";

// Every tensor of a run under the name that it has in the file.
WeightMap AllTensors(const WeightMap& weights, const Optimiser& optimiser) {
  WeightMap all = {{kStepsTaken, optimiser.steps_taken()}};
  for (const auto& [name, tensor] : weights) all.emplace("weight/" + name, tensor);
  for (const auto& [name, tensor] : optimiser.means()) all.emplace("mean/" + name, tensor);
  for (const auto& [name, tensor] : optimiser.variances()) all.emplace("variance/" + name, tensor);
  return all;
}

std::map<std::string, std::string> Metadata(const RunIdentity& identity) {
  return {{"format", kFormat}, {"config", identity.config}, {"data", identity.data}, {"options", identity.options}};
}

}  // namespace

absl::Status WriteTrainCheckpoint(const std::string& folder, const RunIdentity& identity, const WeightMap& weights,
                                  const Optimiser& optimiser, int64_t step) {
  std::map<std::string, std::string> metadata = Metadata(identity);
  metadata["step"] = StrCat(step);
  return CatchTorch(
      [&] { return WriteWeights(folder + "/" + kCheckpointName, AllTensors(weights, optimiser), metadata); });
}

absl::StatusOr<int64_t> ReadTrainCheckpoint(const std::string& folder, const RunIdentity& identity,
                                            const WeightMap& weights, const Optimiser& optimiser) {
  const std::string path = folder + "/" + kCheckpointName;
  RETRO_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  for (const auto& [key, value] : Metadata(identity)) {
    const auto found = file.metadata().find(key);
    if (found != file.metadata().end() && found->second == value) continue;
    return absl::FailedPreconditionError(StrCat(path, " is the checkpoint of a run with other ", key,
                                                ": name another --out, or start from its model alone"));
  }
  int64_t step = 0;
  const auto found = file.metadata().find("step");
  const std::string text = found == file.metadata().end() ? "" : found->second;
  if (std::from_chars(text.data(), text.data() + text.size(), step).ec != std::errc() || step < 0) {
    return absl::InvalidArgumentError(StrCat(path, ": does not say how many steps it stands for"));
  }
  RETRO_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : AllTensors(weights, optimiser)) {
      RETRO_ASSIGN_OR_RETURN(const at::Tensor read, ReadWeight(file, name, tensor.sizes()));
      tensor.copy_(read);
    }
    return absl::OkStatus();
  }));
  return step;
}

}  // namespace retro
