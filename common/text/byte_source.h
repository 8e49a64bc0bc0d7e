// Bytes from files, compressed or not, and from streams, in pieces: memory stays flat however long they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <istream>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace retro {

// Not thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Up to `size` bytes into `buffer`, their number; 0 at the end. DATA_LOSS if compressed data is damaged or cut short.
  virtual absl::StatusOr<size_t> Read(char* buffer, size_t size) = 0;
  // Bytes taken from the file so far, before decompression.
  virtual uint64_t consumed_bytes() const = 0;
};

// A regular file, decompressed if its name ends in .gz or .zst (several members or frames are read as one).
// NOT_FOUND, PERMISSION_DENIED, or INVALID_ARGUMENT for what is no regular file.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path);

// What `stream` gives; it must outlive the source.
std::unique_ptr<ByteSource> StreamByteSource(std::istream& stream);

}  // namespace retro
