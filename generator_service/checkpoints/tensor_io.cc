#include "generator_service/checkpoints/tensor_io.h"

#include <cstring>
#include <optional>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

std::optional<at::ScalarType> TorchType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return at::kFloat;
    case DType::kF64:
      return at::kDouble;
    case DType::kF16:
      return at::kHalf;
    case DType::kBf16:
      return at::kBFloat16;
    case DType::kI64:
      return at::kLong;
    case DType::kI32:
      return at::kInt;
    default:
      return std::nullopt;
  }
}

// The file's bytes may lie unaligned: they are copied, never viewed.
at::Tensor CopyOf(const TensorView& view, at::ScalarType type) {
  at::Tensor tensor = at::empty(view.shape, at::TensorOptions().dtype(type));
  if (!view.bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

absl::Status Bad(const SafetensorsFile& file, const std::string& name, std::string_view why) {
  return absl::InvalidArgumentError(StrCat(file.path(), ": tensor '", name, "' ", why));
}

}  // namespace

absl::StatusOr<at::Tensor> ReadWeight(const SafetensorsFile& file, const std::string& name,
                                      std::span<const int64_t> shape) {
  RETRO_ASSIGN_OR_RETURN(const TensorView view, file.Find(name));
  const std::optional<at::ScalarType> type = TorchType(view.dtype);
  if (!type || !at::isFloatingType(*type))
    return Bad(file, name, StrCat("is ", DTypeName(view.dtype), ", not floating point"));
  if (view.shape != std::vector<int64_t>(shape.begin(), shape.end())) {
    return Bad(file, name, StrCat("has shape ", ShapeString(view.shape), ", the config asks for ", ShapeString(shape)));
  }
  const at::Tensor weight = CopyOf(view, *type).to(at::kFloat);
  if (!at::isfinite(weight).all().item<bool>()) {
    return Bad(file, name,
               "holds NaN or infinity: the file is damaged or its training diverged; take an earlier checkpoint");
  }
  return weight;
}

absl::StatusOr<at::Tensor> ReadReference(const SafetensorsFile& file, const std::string& name) {
  RETRO_ASSIGN_OR_RETURN(const TensorView view, file.Find(name));
  const std::optional<at::ScalarType> type = TorchType(view.dtype);
  if (!type) return Bad(file, name, StrCat("is ", DTypeName(view.dtype), ", which is not read here"));
  return CopyOf(view, *type).to(at::isFloatingType(*type) ? at::kDouble : at::kLong);
}

absl::Status WriteWeights(const std::string& path, const std::map<std::string, at::Tensor>& weights,
                          const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> held;
  std::vector<NamedTensor> named;
  for (const auto& [name, tensor] : weights) {
    const at::Tensor& plain = held.emplace_back(tensor.detach().to(at::kCPU).to(at::kFloat).contiguous());
    named.push_back({name,
                     {DType::kF32,
                      plain.sizes().vec(),
                      {static_cast<const char*>(plain.const_data_ptr()), static_cast<size_t>(plain.nbytes())}}});
  }
  return WriteSafetensors(path, named, metadata);
}

}  // namespace retro
