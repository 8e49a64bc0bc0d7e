// Any bytes as a safetensors file: it is refused, or every tensor can be read whole.
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace retro {
namespace {

// 8 bytes of header length, header, data.
std::string File(std::string_view header, size_t data_bytes) {
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
  return StrCat(file, std::string(header), std::string(data_bytes, 'x'));
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {File(R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
               R"("b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]},"__metadata__":{"format":"pt"}})",
               22),
          File(R"({"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"e":{"dtype":"U8","shape":[0,5],)"
               R"("data_offsets":[8,8]}})",
               8),
          File(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
               R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
               6),
          File(R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
          File(StrCat(R"({"a":)", std::string(300, '['), std::string(300, ']'), "}"), 0)};
}

void FuzzOne(std::string_view input) {
  static const int file = memfd_create("fuzz", 0);
  static const std::string path = StrCat("/proc/self/fd/", file);
  const auto size = static_cast<ssize_t>(input.size());
  Require(ftruncate(file, 0) == 0 && pwrite(file, input.data(), input.size(), 0) == size, "no memory file");
  const auto opened = SafetensorsFile::Open(path);
  if (!opened.ok())
    return Require(opened.status().code() == absl::StatusCode::kInvalidArgument, "refused with another status");
  unsigned sum = 0;
  for (const auto& [name, tensor] : opened->tensors()) {
    for (const char byte : tensor.bytes) sum += static_cast<unsigned char>(byte);
    Require(tensor.bytes.size() == static_cast<size_t>(tensor.element_count()) * DTypeSize(tensor.dtype),
            "bytes that the shape does not ask for");
  }
  static volatile unsigned read = 0;  // the bytes are wanted
  read = sum;
}

}  // namespace retro
