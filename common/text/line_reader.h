// Lines of bounded length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/byte_source.h"

namespace retro {

inline constexpr size_t kLineBytesMax = 64 << 20;

// Not thread-safe.
class LineReader {
 public:
  explicit LineReader(std::unique_ptr<ByteSource> source, size_t line_bytes_max = kLineBytesMax);

  // The next line without its break into `line`; false at the end. OUT_OF_RANGE for a line that is too long: it is
  // passed over, and the next call gives the line after it. Other errors are the source's, and final.
  absl::StatusOr<bool> Next(std::string* line);

  uint64_t line_number() const { return line_number_; }  // of the last line, from 1
  uint64_t consumed_bytes() const { return source_->consumed_bytes(); }

 private:
  std::unique_ptr<ByteSource> source_;
  const size_t line_bytes_max_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // what is read and not yet given is [begin_, end_)
  size_t end_ = 0;
  uint64_t line_number_ = 0;
};

}  // namespace retro
