#include "generator_service/checkpoints/tensor_io.h"

#include <cstdint>
#include <cstring>
#include <limits>
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

absl::StatusOr<at::ScalarType> FloatingType(const SafetensorsFile& file, const std::string& name,
                                            const TensorView& view) {
  const std::optional<at::ScalarType> type = TorchType(view.dtype);
  if (type && at::isFloatingType(*type)) return *type;
  return Bad(file, name, StrCat("is ", DTypeName(view.dtype), ", not floating point"));
}

// Whether the numbers of which these are the bits are smaller in size than the one with the bits `bound`: as integers
// they are in the same order.
template <typename Bits>
bool AllBelow(std::string_view bytes, Bits bound) {
  constexpr Bits kSize = std::numeric_limits<Bits>::max() >> 1;  // all but the sign
  unsigned found = 0;  // without a branch in the loop, which then runs at the memory's speed
  for (size_t i = 0; i < bytes.size(); i += sizeof(Bits)) {
    Bits bits = 0;
    std::memcpy(&bits, bytes.data() + i, sizeof bits);
    found |= static_cast<unsigned>((bits & kSize) >= bound);
  }
  return found == 0;
}

absl::Status CheckShape(const SafetensorsFile& file, const std::string& name, std::span<const int64_t> shape) {
  RETRO_ASSIGN_OR_RETURN(const TensorView view, file.Find(name));
  if (view.shape == std::vector<int64_t>(shape.begin(), shape.end())) return absl::OkStatus();
  return Bad(file, name, StrCat("has shape ", ShapeString(view.shape), ", the config asks for ", ShapeString(shape)));
}

}  // namespace

absl::Status CheckFinite(std::string_view bytes, DType dtype) {
  bool finite = false;
  switch (dtype) {
    case DType::kF32:
      finite = AllBelow<uint32_t>(bytes, 0x7F80'0000);
      break;
    case DType::kF64:  // from where on fp32 is infinity
      finite = AllBelow<uint64_t>(bytes, 0x47EF'FFFF'F000'0000);
      break;
    case DType::kF16:
      finite = AllBelow<uint16_t>(bytes, 0x7C00);
      break;
    case DType::kBf16:
      finite = AllBelow<uint16_t>(bytes, 0x7F80);
      break;
    default:
      break;
  }
  if (finite) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "holds NaN or infinity: the file is damaged or its training diverged; take an earlier checkpoint");
}

absl::Status CheckFinite(const at::Tensor& weight) {
  const at::Tensor plain = weight.contiguous();
  return CheckFinite({static_cast<const char*>(plain.const_data_ptr()), plain.nbytes()}, DType::kF32);
}

absl::StatusOr<at::Tensor> ReadFloats(const SafetensorsFile& file, const std::string& name) {
  RETRO_ASSIGN_OR_RETURN(const TensorView view, file.Find(name));
  RETRO_ASSIGN_OR_RETURN(const at::ScalarType type, FloatingType(file, name, view));
  at::Tensor copy = CopyOf(view, type).to(at::kFloat);
  file.Forget(view);
  return copy;
}

absl::StatusOr<at::Tensor> ReadWeight(const SafetensorsFile& file, const std::string& name,
                                      std::span<const int64_t> shape) {
  RETRO_RETURN_IF_ERROR(CheckShape(file, name, shape));
  RETRO_ASSIGN_OR_RETURN(at::Tensor weight, ReadFloats(file, name));
  const absl::Status finite = CheckFinite(weight);
  if (!finite.ok()) return Bad(file, name, MessageOf(finite));
  return weight;
}

absl::StatusOr<at::Tensor> MapWeight(const std::shared_ptr<const SafetensorsFile>& file, const std::string& name,
                                     std::span<const int64_t> shape) {
  RETRO_RETURN_IF_ERROR(CheckShape(*file, name, shape));
  RETRO_ASSIGN_OR_RETURN(const TensorView view, file->Find(name));
  RETRO_ASSIGN_OR_RETURN(const at::ScalarType type, FloatingType(*file, name, view));
  if (reinterpret_cast<uintptr_t>(view.bytes.data()) % at::elementSize(type) != 0) return CopyOf(view, type);
  return at::from_blob(
      const_cast<char*>(view.bytes.data()), at::IntArrayRef(shape.data(), shape.size()), [file](void*) {},
      at::TensorOptions().dtype(type));
}

absl::StatusOr<at::Tensor> ReadReference(const SafetensorsFile& file, const std::string& name) {
  RETRO_ASSIGN_OR_RETURN(const TensorView view, file.Find(name));
  const std::optional<at::ScalarType> type = TorchType(view.dtype);
  if (!type) return Bad(file, name, StrCat("is ", DTypeName(view.dtype), ", which is not read here"));
  return CopyOf(view, *type).to(at::isFloatingType(*type) ? at::kDouble : at::kLong);
}

absl::Status WriteWeights(const std::string& path, const std::map<std::string, at::Tensor>& weights,
                          const std::map<std::string, std::string>& metadata) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& [name, tensor] : weights) shapes[name] = tensor.sizes().vec();
  return WriteWeights(path, shapes, metadata, [&](const std::string& name) { return weights.at(name); });
}

absl::Status WriteWeights(const std::string& path, const std::map<std::string, std::vector<int64_t>>& shapes,
                          const std::map<std::string, std::string>& metadata, const TensorGiver& give) {
  std::vector<NamedTensor> named;
  named.reserve(shapes.size());
  for (const auto& [name, shape] : shapes) named.push_back({name, {DType::kF32, shape, {}}});
  RETRO_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, named, metadata));
  for (const std::string& name : writer.order()) {
    RETRO_ASSIGN_OR_RETURN(const at::Tensor tensor, give(name));
    const at::Tensor plain = tensor.detach().to(at::kCPU).to(at::kFloat).contiguous();
    const auto size = static_cast<size_t>(plain.nbytes());
    RETRO_RETURN_IF_ERROR(writer.Append({static_cast<const char*>(plain.const_data_ptr()), size}));
  }
  return writer.Commit();
}

}  // namespace retro
