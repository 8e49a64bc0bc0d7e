// A model's folder:
//   config.json        format and version; the model config; which tokenizer and embedder the model was trained
//                      with, and how many neighbours a chunk, if not two; the revision, which is the SHA-256 of
//                      model.safetensors
//   model.safetensors  the weights, fp32 (F16 and BF16 are read too), by the names of the weight table, matrices
//                      [out, in]
//   tokenizer.model    or vocab.txt: a copy of the tokenizer, if the model has its own
// A folder is replaced as a whole, although no file system renames several files at once: new files are written beside
// the old ones as NAME.next, config.json.next last of all. Once that stands there, every NAME.next is the folder's
// NAME, wherever the writer was cut before it had renamed them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "generator_service/model/config.h"
#include "generator_service/model/model.h"
#include "generator_service/model/neighbours.h"
#include "generator_service/model/weight_table.h"

namespace at {
class Tensor;
}

namespace retro {

struct CheckpointInfo {
  ModelConfig config;
  std::string tokenizer_file;         // name within the folder; empty: none
  std::string tokenizer_fingerprint;  // hex, as trained; empty: not recorded
  std::string embedder_fingerprint;   // hex, of the embedder that found the neighbours in training; empty: not recorded
  int64_t trained_neighbours = kTrainedNeighbours;  // k
  std::string revision;                             // hex
};

inline constexpr int64_t kTrainedNeighboursMax = 1024;
inline constexpr char kConfigFileName[] = "config.json";
inline constexpr char kWeightsFileName[] = "model.safetensors";

// The path of the folder's file of this name, which is NAME.next where a writer was cut before it had renamed it.
std::string ModelFilePath(const std::string& directory, const std::string& name);

// config.json alone. NOT_FOUND if the folder is no model; INVALID_ARGUMENT naming file and key; FAILED_PRECONDITION for
// a newer format version.
absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& directory);

// The weights, by the weight table's names, fp32 on the CPU; not to be written to, for they may lie in the file. Checks
// the revision, that exactly the table's tensors are there, and each one's shape and values (INVALID_ARGUMENT or
// FAILED_PRECONDITION naming file and tensor, and what to do).
absl::StatusOr<std::map<std::string, at::Tensor>> ReadCheckpointWeights(const std::string& directory,
                                                                        const CheckpointInfo& info);

struct LoadedModel {
  CheckpointInfo info;
  std::unique_ptr<RetroModel> model;
};

// Both, and the model on `device`. The weights are taken over matrix by matrix, straight from the file; of one in half
// precision no more than one matrix is held as fp32.
absl::StatusOr<LoadedModel> LoadModel(const std::string& directory, const std::string& device,
                                      const ModelOptions& options = {});

// Writes the folder, making it if need be; `info.revision` is ignored and computed. `tokenizer_path`, if not empty, is
// copied to `info.tokenizer_file`. Returns the revision. One that fails or is killed leaves the folder's old model or,
// from the moment that all of it is on the disk, the new one. One writer at a time.
absl::StatusOr<std::string> SaveCheckpoint(const std::string& directory, const CheckpointInfo& info,
                                           const std::map<std::string, at::Tensor>& weights,
                                           const std::string& tokenizer_path);
// The same for weights that are given one after the other, so that they need not all be in memory.
using WeightGiver = std::function<absl::StatusOr<at::Tensor>(const WeightSpec&)>;
absl::StatusOr<std::string> SaveCheckpoint(const std::string& directory, const CheckpointInfo& info,
                                           const WeightGiver& weight, const std::string& tokenizer_path);

}  // namespace retro
