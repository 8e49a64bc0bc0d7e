// A file that torch.save wrote (PyTorch 1.6 and later): a zip archive with a pickle that names tensors and a stored
// entry for the bytes of each. Its tensors and plain values are read; nothing in it is ever run. For model tools only:
// a service reads safetensors.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/file.h"
#include "generator_service/checkpoints/tensor_source.h"

namespace retro {

class TorchArchive : public TensorSource {
 public:
  // The tensors are those under "state_dict" or "model", if the file has such a dictionary, else all: nested keys
  // joined by dots. INVALID_ARGUMENT naming the file for anything malformed.
  static absl::StatusOr<std::unique_ptr<TorchArchive>> Open(const std::string& path);

  const std::string& path() const override { return path_; }
  const Shapes& shapes() const override { return shapes_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override;
  nlohmann::ordered_json facts() const override { return facts_; }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  friend class TorchArchiveReader;

  // A tensor of the pickle.
  struct Stored {
    std::string_view bytes;  // of its storage, from the tensor's first element to its last
    at::ScalarType type = at::kFloat;
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;
  };

  TorchArchive(std::string path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  MappedFile file_;
  std::map<std::string, Stored> tensors_;
  Shapes shapes_;
  nlohmann::ordered_json facts_ = nlohmann::ordered_json::object();
  std::vector<std::string> notes_;
};

}  // namespace retro
