// The safetensors file format: tensors by name, in one file that can be mapped. Without torch.
// Layout: 8 bytes little-endian header length N; N bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]},
// "__metadata__": {string: string}}; then the tensors' bytes (row-major, little-endian), which they fill without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/file.h"

namespace retro {

enum class DType { kBool, kU8, kI8, kU16, kI16, kF16, kBf16, kU32, kI32, kF32, kU64, kI64, kF64 };

size_t DTypeSize(DType dtype);            // bytes of one element
std::string_view DTypeName(DType dtype);  // as in the header: "F32"

// The longest header accepted, in bytes (the format's own bound).
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // empty: one element
  std::string_view bytes;      // element count * DTypeSize(dtype) bytes; possibly unaligned, so copy rather than cast

  int64_t element_count() const;
};

// "[3, 16]"
std::string ShapeString(std::span<const int64_t> shape);

// A mapped file whose header has been checked whole: every tensor's range lies in the file, has the length that shape
// and dtype ask for, and shares no byte with another's. Immutable: any thread may read. Views live as long as this
// object.
class SafetensorsFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT naming the file, and the tensor, for anything malformed or cut.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  // Lets go of the memory that holds a tensor's bytes, until they are read again.
  void Forget(const TensorView& tensor) const { file_.Forget(tensor.bytes); }

  // NOT_FOUND naming file and tensor.
  absl::StatusOr<TensorView> Find(std::string_view name) const;

  // The whole file, header and all.
  std::string_view bytes() const { return file_.bytes(); }
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

 private:
  SafetensorsFile(std::string path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}
  absl::Status ParseHeader();
  absl::Status CheckLayout(size_t data_size) const;

  std::string path_;
  MappedFile file_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
  std::string name;
  TensorView tensor;
};

// Writes a file whose tensors are not all in memory at once. Create with all names, dtypes and shapes (`bytes` is not
// looked at), then one Append a tensor, in the order of order(), then Commit.
class SafetensorsWriter {
 public:
  // INVALID_ARGUMENT for a name used twice or sizes that do not fit into 63 bits.
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path, std::span<const NamedTensor> tensors,
                                                  const std::map<std::string, std::string>& metadata);

  // Names as they stand in the file: by falling element size, then by name, so that each tensor is aligned to its
  // elements and equal content gives equal bytes.
  const std::vector<std::string>& order() const { return order_; }
  // The next tensor's bytes. INVALID_ARGUMENT if they do not fit shape and dtype, or there is none left.
  absl::Status Append(std::string_view bytes);
  // Replaces `path`. FAILED_PRECONDITION if tensors are missing.
  absl::Status Commit();

 private:
  SafetensorsWriter(std::string path, AtomicFile file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  AtomicFile file_;
  std::vector<std::string> order_;
  std::vector<uint64_t> sizes_;  // in that order
  size_t next_ = 0;
};

// The same for tensors that are in memory. INVALID_ARGUMENT for a name used twice or bytes that do not fit shape and
// dtype.
absl::Status WriteSafetensors(const std::string& path, std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace retro
