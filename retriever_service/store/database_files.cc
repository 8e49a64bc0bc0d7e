#include "retriever_service/store/database_files.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/folder.h"

namespace retro {
namespace {

constexpr std::string_view kManifest = "MANIFEST-";
constexpr std::string_view kOptions = "OPTIONS-";
constexpr std::string_view kLog = ".log";
constexpr std::string_view kTable = ".sst";

absl::StatusOr<std::vector<std::string>> ListNames(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names = NamesIn(folder, error);
  if (error && error != std::errc::no_such_file_or_directory) {
    return ErrnoStatus(error.value(), "cannot list", folder);
  }
  return names;
}

// Of a name that is just a number between these.
std::optional<uint64_t> NumberIn(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (name.size() < prefix.size() + suffix.size()) return std::nullopt;
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  name.remove_suffix(suffix.size());
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return number;
}

std::optional<uint64_t> Newest(const std::vector<std::string>& names, std::string_view prefix,
                               std::string_view suffix) {
  std::optional<uint64_t> newest;
  for (const std::string& name : names) newest = std::max(newest, NumberIn(name, prefix, suffix));
  return newest;
}

absl::Status Missing(const std::string& folder, std::string_view what) {
  return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
               StrCat("the store in ", folder, " is damaged: ", what,
                      " is missing, and what is left was not touched: put it back, or restore the store from a "
                      "snapshot or a replica"));
}

absl::StatusOr<bool> LookFor(const std::string& folder, bool opened_before) {
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(folder));
  const std::optional<uint64_t> newest_log = Newest(names, "", kLog);
  const absl::StatusOr<std::string> current = ReadFile(folder + "/CURRENT");
  if (absl::IsNotFound(current.status())) {
    // A process that died while it made a database may have left a manifest, but neither of these.
    const bool is_part_of_one = newest_log.has_value() || Newest(names, "", kTable).has_value();
    if (opened_before || is_part_of_one) return Missing(folder, "CURRENT");
    return false;
  }
  RETRO_RETURN_IF_ERROR(current.status());
  const std::string manifest = current->substr(0, current->find('\n'));
  const std::optional<uint64_t> manifest_number = NumberIn(manifest, kManifest, "");
  if (!manifest_number.has_value()) return true;  // damaged, as RocksDB will say
  if (std::ranges::find(names, manifest) == names.end()) {
    return Missing(folder, StrCat("the file ", manifest, ", which CURRENT names,"));
  }
  if (!opened_before) return true;
  // Each opening makes a log, a manifest and options, numbered in this order, and an older log may be left beside them.
  // A manifest later than the options was begun since, and nothing follows from its number.
  const bool is_of_opening = Newest(names, kOptions, "") > manifest_number;
  if (!newest_log.has_value() || (is_of_opening && *newest_log + 1 < *manifest_number)) {
    return Missing(folder, StrCat("its newest write-ahead log, a file *", kLog, ","));
  }
  return true;
}

}  // namespace

absl::StatusOr<bool> FindDatabase(const std::string& folder, bool opened_before) {
  absl::StatusOr<bool> found = LookFor(folder, opened_before);
  // What is missing may be what another process, which has the store open, has made or replaced meanwhile.
  if (absl::IsDataLoss(found.status())) found = LookFor(folder, opened_before);
  return found;
}

std::string LogsIn(const std::string& folder) {
  std::vector<std::string> logs = ListNames(folder).value_or(std::vector<std::string>());
  std::erase_if(logs, [](const std::string& name) { return !name.ends_with(kLog); });
  if (logs.empty()) return StrCat("none in ", folder);
  for (std::string& log : logs) log = StrCat(folder, "/", log);
  std::sort(logs.begin(), logs.end());
  return absl::StrJoin(logs, ", ");
}

}  // namespace retro
