// Any bytes as a safetensors file: it is refused, or every tensor can be read whole.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/safetensors/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int file = memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  const auto opened = retro::SafetensorsFile::Open(path);
  if (!opened.ok()) {
    if (opened.status().code() != absl::StatusCode::kInvalidArgument) std::abort();
    return 0;
  }
  unsigned sum = 0;
  for (const auto& [name, tensor] : opened->tensors()) {
    for (const char byte : tensor.bytes) sum += static_cast<unsigned char>(byte);
    if (tensor.bytes.size() != static_cast<size_t>(tensor.element_count()) * retro::DTypeSize(tensor.dtype))
      std::abort();
  }
  volatile unsigned used = sum;  // the bytes are wanted
  (void)used;
  return 0;
}
