#include "cli/decoding_source.h"

#include <iconv.h>

#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

constexpr size_t kInputBytes = 64 << 10;
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

class IconvSource : public ByteSource {
 public:
  IconvSource(std::unique_ptr<ByteSource> raw, iconv_t converter, std::string encoding, bool repair)
      : raw_(std::move(raw)),
        converter_(converter),
        encoding_(std::move(encoding)),
        repair_(repair),
        input_(kInputBytes) {}
  ~IconvSource() override { iconv_close(converter_); }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    char* out = buffer;
    size_t room = size;
    while (out == buffer) {
      if (begin_ == end_ || starved_) {
        RETRO_ASSIGN_OR_RETURN(const bool more, Fill());
        if (!more) {
          if (begin_ == end_) return size_t{0};
          RETRO_RETURN_IF_ERROR(SkipBad(&out, &room));  // a character was cut off by the end
          continue;
        }
      }
      char* in = input_.data() + begin_;
      size_t left = end_ - begin_;
      const size_t code = iconv(converter_, &in, &left, &out, &room);
      begin_ = end_ - left;
      if (code != static_cast<size_t>(-1) || errno == E2BIG) continue;
      if (errno == EINVAL) {
        starved_ = true;
      } else {
        RETRO_RETURN_IF_ERROR(SkipBad(&out, &room));
      }
    }
    return size - room;
  }
  uint64_t consumed_bytes() const override { return raw_->consumed_bytes(); }

 private:
  // Appends to what is left of the input; false at the end.
  absl::StatusOr<bool> Fill() {
    std::memmove(input_.data(), input_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    starved_ = false;
    RETRO_ASSIGN_OR_RETURN(const size_t got, raw_->Read(input_.data() + end_, input_.size() - end_));
    end_ += got;
    read_ += got;
    return got > 0;
  }

  absl::Status SkipBad(char** out, size_t* room) {
    if (!repair_) {
      return absl::InvalidArgumentError(
          StrCat("it is no ", encoding_, " at byte ", read_ - (end_ - begin_),
                 ": name its encoding with --encoding, or replace what is bad with --repair"));
    }
    if (*room < kReplacement.size()) return absl::OkStatus();  // comes again with a fresh buffer
    std::memcpy(*out, kReplacement.data(), kReplacement.size());
    *out += kReplacement.size();
    *room -= kReplacement.size();
    ++begin_;
    return absl::OkStatus();
  }

  std::unique_ptr<ByteSource> raw_;
  iconv_t converter_;
  std::string encoding_;
  bool repair_;
  std::vector<char> input_;
  size_t begin_ = 0;  // the input not yet converted is [begin_, end_)
  size_t end_ = 0;
  uint64_t read_ = 0;
  bool starved_ = false;  // what is left is the beginning of a character
};

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// The value of charset=... in a <meta> tag, as browsers look for it.
std::string MetaCharset(const std::string& lower) {
  for (size_t at = lower.find("<meta"); at != std::string::npos; at = lower.find("<meta", at + 1)) {
    const std::string tag = lower.substr(at, lower.find('>', at) - at);
    size_t value = tag.find("charset");
    if (value == std::string::npos) continue;
    value = tag.find_first_not_of(" \t\r\n=\"'", value + std::strlen("charset"));
    if (value == std::string::npos) continue;
    return tag.substr(value, tag.find_first_of(" \t\r\n\"';/", value) - value);
  }
  return "";
}

}  // namespace

std::string DeclaredEncoding(std::string_view beginning, bool html) {
  if (beginning.starts_with("\xef\xbb\xbf")) return "utf-8";
  if (beginning.starts_with("\xff\xfe") || beginning.starts_with("\xfe\xff")) return "utf-16";
  if (!html) return "";
  std::string charset = MetaCharset(Lower(beginning));
  if (charset == "iso-8859-1" || charset == "latin1" || charset == "us-ascii" || charset == "ascii") {
    return "windows-1252";
  }
  return charset;
}

bool IsUtf8Name(std::string_view encoding) {
  const std::string lower = Lower(encoding);
  return lower.empty() || lower == "utf-8" || lower == "utf8";
}

absl::StatusOr<std::unique_ptr<ByteSource>> DecodingSource(std::unique_ptr<ByteSource> raw, const std::string& encoding,
                                                           bool repair) {
  const std::string name = Lower(encoding) == "latin-1" ? "ISO-8859-1" : encoding;
  const iconv_t converter = iconv_open("UTF-8", name.c_str());
  if (reinterpret_cast<intptr_t>(converter) == -1) {
    return absl::InvalidArgumentError(StrCat("the encoding '", encoding, "' is not known here (see iconv --list)"));
  }
  return std::make_unique<IconvSource>(std::move(raw), converter, encoding, repair);
}

}  // namespace retro::cli
