// The foreign format "paper": the names and layout of the fp64 reference implementation. Matrices stand as [in, out].
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "generator_service/model/config.h"

namespace at {
class Tensor;
}

namespace retro {

struct ImportedModel {
  ModelConfig config;
  std::map<std::string, at::Tensor> weights;  // by the weight table's names
};

// `config_path`: JSON, the reference's config object, alone or under "config". INVALID_ARGUMENT naming the file and the
// key or tensor that is missing, unknown or misshapen.
absl::StatusOr<ImportedModel> ImportPaper(const std::string& config_path, const std::string& weights_path);

}  // namespace retro
