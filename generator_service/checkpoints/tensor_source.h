// Where foreign tensors come from: a safetensors file, a PyTorch archive, the merged files of a tensor-parallel
// training.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "nlohmann/json.hpp"

namespace retro {

// One line: "PATH: 'A' and 7 others were dropped: WHY". At least one name.
std::string DroppedNote(const std::string& path, const std::vector<std::string>& names, std::string_view why);

class TensorSource {
 public:
  using Shapes = std::map<std::string, std::vector<int64_t>, std::less<>>;

  virtual ~TensorSource() = default;

  // The file or folder, for messages.
  virtual const std::string& path() const = 0;
  // All tensors by name.
  virtual const Shapes& shapes() const = 0;
  // A copy as fp32 on the CPU; nothing of it stays in memory once the caller lets go of it. NOT_FOUND if there is none
  // of this name, INVALID_ARGUMENT naming file and tensor for one that is not floating point.
  virtual absl::StatusOr<at::Tensor> Read(const std::string& name) const = 0;

  // What the checkpoint says of itself, plain values only: an object, empty for formats that say nothing. A training's
  // arguments stand under "args".
  virtual nlohmann::ordered_json facts() const { return nlohmann::ordered_json::object(); }
  // What is in the file and was not read, one line each.
  virtual std::vector<std::string> notes() const { return {}; }

  bool Has(std::string_view name) const { return shapes().contains(name); }
};

// A safetensors file.
class SafetensorsSource : public TensorSource {
 public:
  static absl::StatusOr<std::unique_ptr<TensorSource>> Open(const std::string& path);

  const std::string& path() const override { return file_.path(); }
  const Shapes& shapes() const override { return shapes_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override;

 private:
  explicit SafetensorsSource(SafetensorsFile file);

  SafetensorsFile file_;
  Shapes shapes_;
};

}  // namespace retro
