#include "cli/ingest_journal.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "nlohmann/json.hpp"

namespace retro::cli {
namespace {

using Json = nlohmann::json;

constexpr std::chrono::seconds kWriteInterval{1};

bool IsEntry(const Json& entry) {
  return entry.is_object() && entry.contains("target") && entry["target"].is_string() && entry.contains("path") &&
         entry["path"].is_string() && entry.contains("size") && entry["size"].is_number_unsigned() &&
         entry.contains("modified_ns") && entry["modified_ns"].is_number_integer() && entry.contains("done") &&
         entry["done"].is_number_unsigned();
}

}  // namespace

absl::StatusOr<std::unique_ptr<IngestJournal>> IngestJournal::Open(const std::string& path, const std::string& target) {
  std::unique_ptr<IngestJournal> journal(new IngestJournal(path, target));
  RETRO_RETURN_IF_ERROR(journal->Load());
  journal->file_.open(path, std::ios::app | std::ios::binary);
  if (!journal->file_) return absl::PermissionDeniedError(StrCat("cannot write the resume file ", path));
  journal->file_ << '\n';  // behind a line that a killed run has cut
  return journal;
}

absl::Status IngestJournal::Load() {
  std::ifstream file(path_, std::ios::binary);
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty()) continue;
    const Json entry = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (entry.is_discarded() && line.starts_with('{')) continue;
    if (!IsEntry(entry)) {
      return absl::InvalidArgumentError(StrCat(path_, " is no resume file of retro ingest: name another one"));
    }
    if (entry["target"].get_ref<const std::string&>() != target_) continue;
    const Key key = {entry["path"].get<std::string>(), entry["size"].get<uint64_t>(),
                     entry["modified_ns"].get<int64_t>()};
    done_[key] = entry["done"].get<uint64_t>();
  }
  return absl::OkStatus();
}

uint64_t IngestJournal::DoneOf(const InputFile& file) const {
  const auto found = done_.find({file.path, file.size_bytes, file.modified_ns});
  return found == done_.end() ? 0 : found->second;
}

void IngestJournal::Record(const InputFile& file, uint64_t done) {
  const Key key = {file.path, file.size_bytes, file.modified_ns};
  if (has_unwritten_ && unwritten_ != key) Write();
  done_[key] = done;
  unwritten_ = key;
  has_unwritten_ = true;
  if (std::chrono::steady_clock::now() - last_write_ >= kWriteInterval) Write();
}

absl::Status IngestJournal::Flush() {
  if (has_unwritten_) Write();
  if (file_) return absl::OkStatus();
  return absl::ResourceExhaustedError(StrCat("cannot write the resume file ", path_, ": is the disk full?"));
}

void IngestJournal::Write() {
  const auto& [path, size, modified_ns] = unwritten_;
  const Json entry = {
      {"target", target_}, {"path", path}, {"size", size}, {"modified_ns", modified_ns}, {"done", done_[unwritten_]}};
  file_ << entry.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  has_unwritten_ = false;
  last_write_ = std::chrono::steady_clock::now();
}

}  // namespace retro::cli
