// Any bytes as a compressed file: read to its end, or DATA_LOSS; never more at once than was asked for.
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>

#include "common/base/strings.h"
#include "common/text/byte_source.h"
#include "tests/fuzz/fuzz.h"

namespace retro {
namespace {

constexpr size_t kBytesMax =
    size_t{1} << 20;  // of what comes out: a few bytes of these formats can stand for much more

void ReadAs(const char* ending, std::string_view input) {
  static const int file = memfd_create("fuzz", 0);
  const auto size = static_cast<ssize_t>(input.size());
  Require(ftruncate(file, 0) == 0 && pwrite(file, input.data(), input.size(), 0) == size, "no memory file");
  const std::filesystem::path link = std::filesystem::temp_directory_path() / StrCat("fuzz-", getpid(), ending);
  std::error_code error;
  std::filesystem::remove(link, error);
  std::filesystem::create_symlink(StrCat("/proc/", getpid(), "/fd/", file), link);
  const auto source = OpenByteSource(link);
  std::filesystem::remove(link);
  Require(source.ok(), "a file that is there is not opened");
  char buffer[4096];
  for (size_t all = 0; all < kBytesMax;) {
    const auto read = (*source)->Read(buffer, sizeof buffer);
    if (!read.ok() || *read == 0) return;
    Require(*read <= sizeof buffer, "more than was asked for");
    all += *read;
  }
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {
      std::string("\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x27\x01\xe3\x51\x3d\x8d"
                  "\x17\x00\x00\x00",
                  28),
      std::string(
          "\x28\xb5\x2f\xfd\x04\x68\x65\x00\x00\x30\x68\x65\x6c\x6c\x6f\x20\x01\x00\x42\x96\x22\xad\x8a\x76\xfa", 25)};
}

void FuzzOne(std::string_view input) {
  ReadAs(".gz", input);
  ReadAs(".zst", input);
}

}  // namespace retro
