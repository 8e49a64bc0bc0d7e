// Any bytes as a safetensors file: it is refused, or every tensor can be read whole.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "common/safetensors/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() { return ReadCorpus("safetensors"); }

void FuzzOne(std::string_view input) {
  static const int file = memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  Require(ftruncate(file, 0) == 0, "the file in memory is not emptied");
  Require(pwrite(file, input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()), "nor written");
  const auto opened = SafetensorsFile::Open(path);
  if (!opened.ok()) {
    Require(opened.status().code() == absl::StatusCode::kInvalidArgument, "refused with another code");
    return;
  }
  unsigned sum = 0;
  for (const auto& [name, tensor] : opened->tensors()) {
    for (const char byte : tensor.bytes) sum += static_cast<unsigned char>(byte);
    Require(tensor.bytes.size() == static_cast<size_t>(tensor.element_count()) * DTypeSize(tensor.dtype),
            "a tensor's bytes are not those of its shape");
  }
  volatile unsigned used = sum;  // the bytes are wanted
  (void)used;
}

}  // namespace retro
