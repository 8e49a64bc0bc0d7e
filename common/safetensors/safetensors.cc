#include "common/safetensors/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian and are read in place");

constexpr size_t kLengthBytes = 8;
constexpr size_t kHeaderAlignment = 8;
constexpr size_t kDimensionsMax = 16;
constexpr std::string_view kMetadataKey = "__metadata__";

struct DTypeInfo {
  DType dtype;
  std::string_view name;
  size_t size;
};

// In the order of the enum.
constexpr std::array<DTypeInfo, 13> kDTypes = {{{DType::kBool, "BOOL", 1},
                                                {DType::kU8, "U8", 1},
                                                {DType::kI8, "I8", 1},
                                                {DType::kU16, "U16", 2},
                                                {DType::kI16, "I16", 2},
                                                {DType::kF16, "F16", 2},
                                                {DType::kBf16, "BF16", 2},
                                                {DType::kU32, "U32", 4},
                                                {DType::kI32, "I32", 4},
                                                {DType::kF32, "F32", 4},
                                                {DType::kU64, "U64", 8},
                                                {DType::kI64, "I64", 8},
                                                {DType::kF64, "F64", 8}}};

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) return info.dtype;
  }
  return std::nullopt;
}

// Shape and dtype in bytes; nothing if that does not fit into 63 bits.
std::optional<uint64_t> ByteCount(std::span<const int64_t> shape, DType dtype) {
  int64_t bytes = static_cast<int64_t>(DTypeSize(dtype));
  for (const int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, dimension, &bytes)) return std::nullopt;
  }
  return static_cast<uint64_t>(bytes);
}

// Parses the header, refusing keys that occur twice in one object (nlohmann would keep the last in silence).
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text) {
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  const auto on_event = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second)
      repeated = value.get<std::string>();
    return true;
  };
  nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), on_event, /*allow_exceptions=*/false);
  if (!repeated.empty()) return absl::InvalidArgumentError(StrCat("'", repeated, "' occurs twice in the header"));
  if (!json.is_object()) return absl::InvalidArgumentError("the header is not a JSON object");
  return json;
}

absl::StatusOr<std::vector<int64_t>> ParseShape(const nlohmann::json& json) {
  if (!json.is_array() || json.size() > kDimensionsMax) return absl::InvalidArgumentError("shape is not a short list");
  std::vector<int64_t> shape;
  for (const nlohmann::json& dimension : json) {
    if (!dimension.is_number_unsigned() || dimension.get<uint64_t>() > INT64_MAX) {
      return absl::InvalidArgumentError("shape holds something that is not a size");
    }
    shape.push_back(dimension.get<int64_t>());
  }
  return shape;
}

// One entry of the header against the bytes that follow it.
absl::StatusOr<TensorView> ParseTensor(const nlohmann::json& entry, std::string_view data) {
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return absl::InvalidArgumentError("needs exactly dtype, shape and data_offsets");
  }
  if (!entry["dtype"].is_string()) return absl::InvalidArgumentError("dtype is not a string");
  const std::string dtype_name = entry["dtype"].get<std::string>();
  const std::optional<DType> dtype = DTypeFromName(dtype_name);
  if (!dtype) return absl::InvalidArgumentError(StrCat("unknown dtype '", dtype_name, "'"));
  RETRO_ASSIGN_OR_RETURN(std::vector<int64_t> shape, ParseShape(entry["shape"]));
  const nlohmann::json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return absl::InvalidArgumentError("data_offsets is not a pair of offsets");
  }
  const uint64_t begin = offsets[0].get<uint64_t>();
  const uint64_t end = offsets[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return absl::InvalidArgumentError(StrCat("bytes ", begin, " to ", end, " are not within the file's ", data.size()));
  }
  const std::optional<uint64_t> expected = ByteCount(shape, *dtype);
  if (!expected || *expected != end - begin) {
    return absl::InvalidArgumentError(
        StrCat("shape ", ShapeString(shape), " of ", dtype_name, " does not fit its ", end - begin, " bytes"));
  }
  return TensorView{*dtype, std::move(shape), data.substr(begin, end - begin)};
}

absl::Status ParseMetadata(const nlohmann::json& json, std::map<std::string, std::string>& metadata) {
  if (!json.is_object()) return absl::InvalidArgumentError("is not an object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) return absl::InvalidArgumentError(StrCat("'", key, "' is not a string"));
    metadata[key] = value.get<std::string>();
  }
  return absl::OkStatus();
}

absl::Status Malformed(const std::string& path, std::string_view tensor, std::string_view why) {
  if (tensor.empty()) return absl::InvalidArgumentError(StrCat(path, " is not a sound safetensors file: ", why));
  return absl::InvalidArgumentError(StrCat(path, " is not a sound safetensors file: tensor '", tensor, "': ", why));
}

// Falling element size, then name.
std::vector<const NamedTensor*> InFileOrder(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const size_t size_a = DTypeSize(a->tensor.dtype);
    const size_t size_b = DTypeSize(b->tensor.dtype);
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });
  return order;
}

}  // namespace

size_t DTypeSize(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].size; }

std::string_view DTypeName(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].name; }

int64_t TensorView::element_count() const { return static_cast<int64_t>(bytes.size() / DTypeSize(dtype)); }

std::string ShapeString(std::span<const int64_t> shape) { return StrCat("[", absl::StrJoin(shape, ", "), "]"); }

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  SafetensorsFile file(path, std::move(mapped));
  RETRO_RETURN_IF_ERROR(file.ParseHeader());
  return file;
}

absl::Status SafetensorsFile::ParseHeader() {
  const std::string_view bytes = file_.bytes();
  uint64_t header_size = 0;
  if (bytes.size() < kLengthBytes) return Malformed(path_, "", "it is shorter than 8 bytes");
  std::memcpy(&header_size, bytes.data(), kLengthBytes);
  if (header_size > kSafetensorsHeaderBytesMax || header_size > bytes.size() - kLengthBytes) {
    return Malformed(path_, "", StrCat("a header of ", header_size, " bytes in a file of ", bytes.size()));
  }
  const std::string_view data = bytes.substr(kLengthBytes + header_size);
  const absl::StatusOr<nlohmann::json> header = ParseJsonObject(bytes.substr(kLengthBytes, header_size));
  if (!header.ok()) return Malformed(path_, "", MessageOf(header.status()));
  for (const auto& [name, entry] : header->items()) {
    if (name == kMetadataKey) {
      const absl::Status status = ParseMetadata(entry, metadata_);
      if (!status.ok()) return Malformed(path_, kMetadataKey, MessageOf(status));
      continue;
    }
    absl::StatusOr<TensorView> tensor = ParseTensor(entry, data);
    if (!tensor.ok()) return Malformed(path_, name, MessageOf(tensor.status()));
    tensors_.emplace(name, *std::move(tensor));
  }
  return CheckLayout(data.size());
}

absl::Status SafetensorsFile::CheckLayout(size_t data_size) const {
  std::vector<std::pair<std::string_view, std::string_view>> ranges;  // bytes, name
  ranges.reserve(tensors_.size());
  for (const auto& [name, tensor] : tensors_) ranges.emplace_back(tensor.bytes, name);
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
  });
  const char* expected = file_.bytes().data() + (file_.bytes().size() - data_size);
  for (const auto& [range, name] : ranges) {
    if (range.data() != expected) {
      return Malformed(path_, name,
                       range.data() < expected ? "its bytes overlap another's" : "a gap lies before its bytes");
    }
    expected = range.data() + range.size();
  }
  const char* end = file_.bytes().data() + file_.bytes().size();
  if (expected != end) return Malformed(path_, "", StrCat(end - expected, " bytes belong to no tensor"));
  return absl::OkStatus();
}

absl::StatusOr<TensorView> SafetensorsFile::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return absl::NotFoundError(StrCat(path_, " has no tensor '", name, "'"));
  return found->second;
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                            std::span<const NamedTensor> tensors,
                                                            const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header[std::string(kMetadataKey)] = metadata;
  std::vector<std::string> order;
  std::vector<uint64_t> sizes;
  uint64_t begin = 0;
  for (const NamedTensor* named : InFileOrder(tensors)) {
    const TensorView& tensor = named->tensor;
    if (named->name == kMetadataKey || header.contains(named->name)) {
      return absl::InvalidArgumentError(StrCat(path, ": tensor name '", named->name, "' is reserved or used twice"));
    }
    const std::optional<uint64_t> size = ByteCount(tensor.shape, tensor.dtype);
    if (!size || *size > INT64_MAX - begin) {
      return absl::InvalidArgumentError(
          StrCat(path, ": tensor '", named->name, "' of shape ", ShapeString(tensor.shape), " is too large"));
    }
    const uint64_t end = begin + *size;
    header[named->name] = {{"dtype", DTypeName(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    order.push_back(named->name);
    sizes.push_back(*size);
    begin = end;
  }
  std::string text = header.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  std::string length(kLengthBytes, '\0');
  const uint64_t text_size = text.size();
  std::memcpy(length.data(), &text_size, kLengthBytes);

  RETRO_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  SafetensorsWriter writer(path, std::move(file));
  writer.order_ = std::move(order);
  writer.sizes_ = std::move(sizes);
  RETRO_RETURN_IF_ERROR(writer.file_.Append(length));
  RETRO_RETURN_IF_ERROR(writer.file_.Append(text));
  return writer;
}

absl::Status SafetensorsWriter::Append(std::string_view bytes) {
  if (next_ == order_.size()) return absl::InvalidArgumentError(StrCat(path_, ": a tensor too many"));
  if (bytes.size() != sizes_[next_]) {
    return absl::InvalidArgumentError(StrCat(path_, ": tensor '", order_[next_], "' has ", bytes.size(),
                                             " bytes, its shape asks for ", sizes_[next_]));
  }
  ++next_;
  return file_.Append(bytes);
}

absl::Status SafetensorsWriter::Commit() {
  if (next_ < order_.size()) {
    return absl::FailedPreconditionError(StrCat(path_, ": tensor '", order_[next_], "' was not written"));
  }
  return file_.Commit();
}

absl::Status WriteSafetensors(const std::string& path, std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  RETRO_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, tensors, metadata));
  for (const NamedTensor* named : InFileOrder(tensors)) RETRO_RETURN_IF_ERROR(writer.Append(named->tensor.bytes));
  return writer.Commit();
}

}  // namespace retro
