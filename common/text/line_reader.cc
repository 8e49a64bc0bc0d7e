#include "common/text/line_reader.h"

#include <cstring>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr size_t kLineBytesKept = 1 << 20;  // capacity kept between lines: one huge line must not cost memory for good

}  // namespace

LineReader::LineReader(std::unique_ptr<ByteSource> source, size_t line_bytes_max)
    : source_(std::move(source)), line_bytes_max_(line_bytes_max), buffer_(kBufferBytes) {}

absl::StatusOr<bool> LineReader::Next(std::string* line) {
  if (line->capacity() > kLineBytesKept) *line = std::string();
  line->clear();
  ++line_number_;
  bool any = false;
  uint64_t length = 0;
  while (true) {
    if (begin_ == end_) {
      RETRO_ASSIGN_OR_RETURN(end_, source_->Read(buffer_.data(), buffer_.size()));
      begin_ = 0;
      if (end_ == 0) break;
    }
    any = true;
    const char* const first = buffer_.data() + begin_;
    const auto* const newline = static_cast<const char*>(std::memchr(first, '\n', end_ - begin_));
    const size_t count = newline != nullptr ? static_cast<size_t>(newline - first) : end_ - begin_;
    length += count;
    if (length <= line_bytes_max_) line->append(first, count);
    begin_ += count + (newline != nullptr ? 1 : 0);
    if (newline != nullptr) break;
  }
  if (length > line_bytes_max_) {
    *line = std::string();
    return absl::OutOfRangeError(
        StrCat("the line has ", length, " bytes, and at most ", line_bytes_max_, " are read: split the document"));
  }
  if (!line->empty() && line->back() == '\r') line->pop_back();
  return any;
}

}  // namespace retro
