#include "retriever_service/store/table_tail.h"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "retriever_service/store/folder.h"

namespace retro {
namespace {

// A table ends with the block of its properties, the block that lists such blocks, and the footer: kind of checksum
// (1), place of that list (varint offset and size), place of the index, padding, version (4), magic number (8).
constexpr uint64_t kFooterBytes = 53;
constexpr unsigned char kMagic[] = {0xF7, 0xCF, 0xF4, 0x85, 0xB7, 0x41, 0xE2, 0x88};  // of a table of blocks
constexpr int kPlaceAt = 1;
constexpr int kVarintBytesMax = 10;
constexpr uint64_t kTrailerBytes = 5;  // after a block: its compression, its checksum
// A block's last four bytes are a little-endian count whose highest bit says that a hash index stands before it.
constexpr unsigned char kHashIndexBit = 0x80;

// The offset that the footer gives to the list of blocks; 0 if that is no number.
uint64_t ListOffset(const unsigned char (&footer)[kFooterBytes]) {
  uint64_t offset = 0;
  for (int i = 0; i < kVarintBytesMax; ++i) {
    const unsigned char byte = footer[kPlaceAt + i];
    offset |= static_cast<uint64_t>(byte & 0x7F) << (7 * i);
    if ((byte & 0x80) == 0) return offset;
  }
  return 0;
}

bool WouldEndTheProcess(const std::filesystem::path& table) {
  std::ifstream file(table, std::ios::binary);
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(table, error);
  if (error || size < kFooterBytes) return false;
  unsigned char footer[kFooterBytes];
  file.seekg(static_cast<std::streamoff>(size - kFooterBytes));
  if (!file.read(reinterpret_cast<char*>(footer), sizeof footer)) return false;
  // Without it RocksDB says itself that this is no table, or it is one that a killed process did not finish, and
  // nobody's.
  if (std::memcmp(footer + kFooterBytes - sizeof kMagic, kMagic, sizeof kMagic) != 0) return false;
  const uint64_t list = ListOffset(footer);
  if (list <= kTrailerBytes || list >= size) return false;
  file.seekg(static_cast<std::streamoff>(list - kTrailerBytes - 1));
  const int last = file.get();
  return last >= 0 && (last & kHashIndexBit) != 0;
}

}  // namespace

absl::Status CheckTableTails(const std::string& folder) {
  std::error_code error;
  for (const std::string& name : NamesIn(folder, error)) {
    const std::string path = StrCat(folder, "/", name);
    if (!name.ends_with(".sst") || !WouldEndTheProcess(path)) continue;
    return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                 StrCat("the store's table ", path,
                        " is damaged: restore it from a snapshot or a replica (its properties are no such block)"));
  }
  return error ? ErrnoStatus(error.value(), "cannot list", folder) : absl::OkStatus();
}

}  // namespace retro
