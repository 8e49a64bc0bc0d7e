#include "generator_service/checkpoints/zip_archive.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

// Records of the format, by their signatures and fixed sizes.
constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kDirectoryEntry = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;
constexpr size_t kLocalHeaderSize = 30;
constexpr size_t kDirectoryEntrySize = 46;
constexpr size_t kEndSize = 22;
constexpr size_t kEnd64Size = 56;
constexpr size_t kEnd64LocatorSize = 20;
constexpr size_t kCommentMax = 65535;
constexpr uint16_t kZip64Field = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the true value stands in the zip64 field
constexpr uint16_t kEncrypted = 1;

absl::Status Malformed(std::string_view why) {
  return absl::InvalidArgumentError(StrCat("is not a sound zip archive: ", why));
}

// The caller has checked that the bytes are there.
template <typename T>
T At(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

bool Holds(std::string_view bytes, uint64_t offset, uint64_t size) {
  return offset <= bytes.size() && size <= bytes.size() - offset;
}

struct Directory {
  uint64_t entries = 0;
  uint64_t size = 0;
  uint64_t offset = 0;
};

absl::StatusOr<Directory> FindDirectory(std::string_view archive) {
  if (archive.size() < kEndSize) return Malformed("it is too short");
  const size_t first = archive.size() - kEndSize - std::min(archive.size() - kEndSize, kCommentMax);
  std::optional<size_t> end;
  for (size_t at = archive.size() - kEndSize + 1; at-- > first && !end;) {
    if (At<uint32_t>(archive, at) == kEnd) end = at;
  }
  if (!end) return Malformed("it has no end record");
  Directory directory{At<uint16_t>(archive, *end + 10), At<uint32_t>(archive, *end + 12),
                      At<uint32_t>(archive, *end + 16)};
  if (*end < kEnd64LocatorSize || At<uint32_t>(archive, *end - kEnd64LocatorSize) != kEnd64Locator) return directory;
  const uint64_t end64 = At<uint64_t>(archive, *end - kEnd64LocatorSize + 8);
  if (!Holds(archive, end64, kEnd64Size) || At<uint32_t>(archive, end64) != kEnd64) {
    return Malformed("its zip64 end record is not where it should be");
  }
  return Directory{At<uint64_t>(archive, end64 + 32), At<uint64_t>(archive, end64 + 40),
                   At<uint64_t>(archive, end64 + 48)};
}

struct Entry {
  std::string name;
  uint64_t size = 0;
  uint64_t packed_size = 0;
  uint64_t header = 0;  // offset of the local header
  size_t record_size = 0;
};

// Replaces the values that stand in the zip64 field: those that are all ones, in this order.
absl::Status ReadZip64(std::string_view extra, Entry& entry) {
  for (size_t at = 0; at + 4 <= extra.size();) {
    const size_t size = At<uint16_t>(extra, at + 2);
    if (!Holds(extra, at + 4, size)) return Malformed(StrCat("'", entry.name, "' has a cut extra field"));
    if (At<uint16_t>(extra, at) == kZip64Field) {
      const std::string_view field = extra.substr(at + 4, size);
      size_t next = 0;
      for (uint64_t* value : {&entry.size, &entry.packed_size, &entry.header}) {
        if (*value != kIn64) continue;
        if (!Holds(field, next, sizeof(uint64_t))) return Malformed(StrCat("'", entry.name, "' lacks its zip64 sizes"));
        *value = At<uint64_t>(field, next);
        next += sizeof(uint64_t);
      }
      return absl::OkStatus();
    }
    at += 4 + size;
  }
  return absl::OkStatus();
}

absl::StatusOr<Entry> ReadEntry(std::string_view directory) {
  if (directory.size() < kDirectoryEntrySize || At<uint32_t>(directory, 0) != kDirectoryEntry) {
    return Malformed("its directory is cut");
  }
  const size_t name_size = At<uint16_t>(directory, 28);
  const size_t extra_size = At<uint16_t>(directory, 30);
  const size_t comment_size = At<uint16_t>(directory, 32);
  Entry entry;
  entry.record_size = kDirectoryEntrySize + name_size + extra_size + comment_size;
  if (directory.size() < entry.record_size) return Malformed("its directory is cut");
  entry.name = std::string(directory.substr(kDirectoryEntrySize, name_size));
  if ((At<uint16_t>(directory, 8) & kEncrypted) != 0) return Malformed(StrCat("'", entry.name, "' is encrypted"));
  if (At<uint16_t>(directory, 10) != 0) return Malformed(StrCat("'", entry.name, "' is packed, not stored"));
  entry.packed_size = At<uint32_t>(directory, 20);
  entry.size = At<uint32_t>(directory, 24);
  entry.header = At<uint32_t>(directory, 42);
  RETRO_RETURN_IF_ERROR(ReadZip64(directory.substr(kDirectoryEntrySize + name_size, extra_size), entry));
  if (entry.size != entry.packed_size) return Malformed(StrCat("'", entry.name, "' has two sizes"));
  return entry;
}

absl::StatusOr<std::string_view> EntryBytes(std::string_view archive, const Entry& entry) {
  if (!Holds(archive, entry.header, kLocalHeaderSize) || At<uint32_t>(archive, entry.header) != kLocalHeader) {
    return Malformed(StrCat("'", entry.name, "' is not where its directory says"));
  }
  const uint64_t begin = entry.header + kLocalHeaderSize + At<uint16_t>(archive, entry.header + 26) +
                         At<uint16_t>(archive, entry.header + 28);
  if (!Holds(archive, begin, entry.size)) {
    return Malformed(StrCat("'", entry.name, "' of ", entry.size, " bytes does not lie within its ", archive.size()));
  }
  return archive.substr(begin, entry.size);
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string_view, std::less<>>> ReadZipArchive(std::string_view archive) {
  RETRO_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(archive));
  if (directory.entries > kZipEntriesMax) return Malformed(StrCat(directory.entries, " entries are too many"));
  if (!Holds(archive, directory.offset, directory.size)) return Malformed("its directory does not lie within it");
  std::string_view rest = archive.substr(directory.offset, directory.size);
  std::map<std::string, std::string_view, std::less<>> entries;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    RETRO_ASSIGN_OR_RETURN(const Entry entry, ReadEntry(rest));
    rest.remove_prefix(entry.record_size);
    RETRO_ASSIGN_OR_RETURN(const std::string_view bytes, EntryBytes(archive, entry));
    if (!entries.emplace(entry.name, bytes).second) return Malformed(StrCat("'", entry.name, "' occurs twice"));
  }
  return entries;
}

}  // namespace retro
