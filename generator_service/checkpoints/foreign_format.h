// A foreign checkpoint format, and what all of them have in common: a config to ours and back, and a place for each of
// our weights. One file a format implements it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "generator_service/checkpoints/foreign_layout.h"
#include "generator_service/checkpoints/tensor_source.h"
#include "generator_service/model/config.h"
#include "generator_service/model/neighbours.h"
#include "nlohmann/json.hpp"

namespace retro {

// What a format says of one checkpoint.
struct ForeignReading {
  ModelConfig config;
  ForeignPlace place;
  int64_t trained_neighbours = kTrainedNeighbours;  // k
  // Tensors that are no weights of ours, and why: they are dropped and reported.
  std::map<std::string, std::string> dropped;
  // Second copies: they must hold what the named tensor holds, bit for bit.
  std::map<std::string, std::string> copies;
  // Config keys that had no use.
  std::vector<std::string> unused_keys;
  // What else the user should know, one line each.
  std::vector<std::string> notes;
};

struct ForeignFormat {
  const char* name;
  const char* description;  // one line for --help
  // INVALID_ARGUMENT naming the key or tensor. `source` is there because an absent tensor may decide the config; its
  // lifetime ends with the reading's.
  absl::StatusOr<ForeignReading> (*read)(const nlohmann::ordered_json& config, const TensorSource& source);
  // Our config as theirs; null: there is no exporter. What their config cannot say is left out: the caller checks.
  nlohmann::ordered_json (*write_config)(const ModelConfig& config);
};

// paper, norlund, megatron, instructretro, lucidrains.
const std::vector<ForeignFormat>& ForeignFormats();
// INVALID_ARGUMENT listing the names.
absl::StatusOr<const ForeignFormat*> FindForeignFormat(const std::string& name);

// A checked foreign checkpoint: every weight of ours has its tensor of the right shape, and no tensor is left over.
class ForeignModel {
 public:
  // `weights_path`: a safetensors file, a PyTorch archive or, for instructretro, the folder of a
  // tensor-parallel training. INVALID_ARGUMENT naming file and key or tensor.
  static absl::StatusOr<ForeignModel> Open(const ForeignFormat& format, const std::string& config_path,
                                           const std::string& weights_path);

  const ModelConfig& config() const { return reading_.config; }
  int64_t trained_neighbours() const { return reading_.trained_neighbours; }
  // What was not taken over, one line each.
  const std::vector<std::string>& notes() const { return notes_; }

  // One weight of the table, fp32. INVALID_ARGUMENT for NaN or infinity, naming the foreign tensor. Tensors are read
  // one at a time, so that a checkpoint needs no more memory than its largest.
  absl::StatusOr<at::Tensor> Read(const WeightSpec& spec) const;
  // All of them.
  absl::StatusOr<std::map<std::string, at::Tensor>> ReadAll() const;

 private:
  absl::Status CheckTensors();
  absl::Status CheckCopies() const;

  std::unique_ptr<TensorSource> source_;
  ForeignReading reading_;
  std::vector<std::string> notes_;
};

// Our weights in the foreign format. FAILED_PRECONDITION naming the first field in which the model is not of the
// format's form.
struct ExportedModel {
  nlohmann::ordered_json config;
  std::map<std::string, at::Tensor> weights;
};
absl::StatusOr<ExportedModel> ExportModel(const ForeignFormat& format, const ModelConfig& config,
                                          const std::map<std::string, at::Tensor>& weights);

}  // namespace retro
