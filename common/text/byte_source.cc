#include "common/text/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

constexpr size_t kInputBytes = 256 << 10;  // compressed bytes read at once
constexpr int kGzipWindowBits = 15 + 16;   // the largest window; 16: a gzip header

class FileSource : public ByteSource {
 public:
  FileSource(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~FileSource() override { close(fd_); }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    ssize_t got = 0;
    do {
      got = read(fd_, buffer, size);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return ErrnoStatus(errno, "cannot read", path_);
    consumed_bytes_ += static_cast<uint64_t>(got);
    return static_cast<size_t>(got);
  }
  uint64_t consumed_bytes() const override { return consumed_bytes_; }

 private:
  int fd_;
  std::string path_;
  uint64_t consumed_bytes_ = 0;
};

class StreamSource : public ByteSource {
 public:
  explicit StreamSource(std::istream& stream) : stream_(stream) {}

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    if (stream_.peek() == std::istream::traits_type::eof()) return size_t{0};
    // What is there now: a slow sender's first line must not wait for its hundredth.
    const std::streamsize ready = std::max<std::streamsize>(1, stream_.rdbuf()->in_avail());
    stream_.read(buffer, std::min(ready, static_cast<std::streamsize>(size)));
    const auto got = static_cast<size_t>(stream_.gcount());
    consumed_bytes_ += got;
    return got;
  }
  uint64_t consumed_bytes() const override { return consumed_bytes_; }

 private:
  std::istream& stream_;
  uint64_t consumed_bytes_ = 0;
};

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> raw) : raw_(std::move(raw)), input_(kInputBytes) {
    ready_ = inflateInit2(&stream_, kGzipWindowBits) == Z_OK;
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    if (!ready_) return absl::ResourceExhaustedError("no memory for decompression");
    stream_.next_out = reinterpret_cast<Bytef*>(buffer);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out == size) {
      if (stream_.avail_in == 0) {
        RETRO_ASSIGN_OR_RETURN(const size_t got, raw_->Read(input_.data(), input_.size()));
        if (got == 0) {
          if (inside_member_) return absl::DataLossError("the .gz file is truncated: fetch it again");
          break;
        }
        stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
        stream_.avail_in = static_cast<uInt>(got);
      }
      inside_member_ = true;
      const int code = inflate(&stream_, Z_NO_FLUSH);
      if (code == Z_STREAM_END) {
        inside_member_ = false;
        inflateReset(&stream_);  // keeps the input; another member may follow
      } else if (code != Z_OK && code != Z_BUF_ERROR) {
        return absl::DataLossError(
            absl::StrCat("the .gz file is damaged: ", stream_.msg != nullptr ? stream_.msg : "no gzip data"));
      }
    }
    return size - stream_.avail_out;
  }
  uint64_t consumed_bytes() const override { return raw_->consumed_bytes(); }

 private:
  std::unique_ptr<ByteSource> raw_;
  std::vector<char> input_;
  z_stream stream_ = {};
  bool ready_ = false;
  bool inside_member_ = true;  // an empty file is a truncated one
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(std::unique_ptr<ByteSource> raw)
      : raw_(std::move(raw)), bytes_(kInputBytes), stream_(ZSTD_createDStream()) {}
  ~ZstdSource() override { ZSTD_freeDStream(stream_); }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    if (stream_ == nullptr) return absl::ResourceExhaustedError("no memory for decompression");
    ZSTD_outBuffer output = {buffer, size, 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size && !output_pending_) {
        RETRO_ASSIGN_OR_RETURN(const size_t got, raw_->Read(bytes_.data(), bytes_.size()));
        if (got == 0) {
          if (inside_frame_) return absl::DataLossError("the .zst file is truncated: fetch it again");
          break;
        }
        input_ = {bytes_.data(), got, 0};
      }
      const size_t code = ZSTD_decompressStream(stream_, &output, &input_);
      if (ZSTD_isError(code) != 0) {
        return absl::DataLossError(absl::StrCat("the .zst file is damaged: ", ZSTD_getErrorName(code)));
      }
      inside_frame_ = code != 0;
      output_pending_ = inside_frame_ && output.pos == output.size;
    }
    return output.pos;
  }
  uint64_t consumed_bytes() const override { return raw_->consumed_bytes(); }

 private:
  std::unique_ptr<ByteSource> raw_;
  std::vector<char> bytes_;
  ZSTD_inBuffer input_ = {nullptr, 0, 0};
  ZSTD_DStream* stream_;
  bool inside_frame_ = true;  // an empty file is a truncated one
  bool output_pending_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);  // a pipe must not hold us up
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  auto file = std::make_unique<FileSource>(fd, path);
  struct stat facts = {};
  if (fstat(fd, &facts) != 0) return ErrnoStatus(errno, "cannot look at", path);
  if (!S_ISREG(facts.st_mode)) return absl::InvalidArgumentError(StrCat(path, " is no regular file"));
  const std::string_view name = path;
  if (name.ends_with(".gz")) return std::make_unique<GzipSource>(std::move(file));
  if (name.ends_with(".zst")) return std::make_unique<ZstdSource>(std::move(file));
  return file;
}

std::unique_ptr<ByteSource> StreamByteSource(std::istream& stream) { return std::make_unique<StreamSource>(stream); }

}  // namespace retro
