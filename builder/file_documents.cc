#include "builder/file_documents.h"

#include <utility>

#include "common/base/strings.h"
#include "common/document/document_limits.h"
#include "retriever_service/ingest/document_change.h"

namespace retro {

void FileDocuments::GoOnAt(const SourcePlace& place) {
  file_ = place.source;
  OpenFile(place.ordinal);
}

void FileDocuments::OpenFile(uint64_t ordinal) {
  if (file_ >= options_.files.size()) return;
  reader_ = cli::OpenDocumentReader(options_.files[file_], options_.reader);
  reader_->SkipTo(ordinal);
}

void FileDocuments::Take(cli::Reading reading, Unit& unit) const {
  absl::Status problem = reading.problem;
  if (problem.ok()) {
    pb::Document& document = *reading.write.mutable_document();
    if (!options_.is_wanted(document.id())) return;
    problem = CheckDocument(document, document.id());
    if (problem.ok()) {
      unit.bytes += document.ByteSizeLong();
      unit.changes.push_back(MakeChange(std::move(document)));
      *unit.changes.back().mutable_write_time() = options_.write_time;
      return;
    }
  }
  ReportLeftOut(MessageOf(problem));
  ++unit.left_out;
}

std::optional<FileDocuments::Unit> FileDocuments::NextUnit() {
  if (reader_ == nullptr) OpenFile(0);
  Unit unit;
  while (file_ < options_.files.size()) {
    std::optional<cli::Reading> reading = reader_->Next();
    if (!reading.has_value()) {
      ++file_;
      OpenFile(0);
      continue;
    }
    unit.next = {file_, reading->ordinal + 1, {}};
    const bool whole = reading->last_of_ordinal;
    Take(*std::move(reading), unit);
    if (whole) return unit;
  }
  return std::nullopt;
}

double FileDocuments::share_read() const {
  uint64_t all = 0, done = 0;
  for (size_t i = 0; i < options_.files.size(); ++i) {
    all += options_.files[i].size_bytes;
    if (i < file_) done = all;
  }
  if (file_ < options_.files.size() && reader_ != nullptr) done += reader_->consumed_bytes();
  return all == 0 ? 0 : static_cast<double>(done) / static_cast<double>(all);
}

absl::StatusOr<std::optional<DocumentGroup>> FileDocuments::Next() {
  DocumentGroup group;
  group.collection = options_.collection;
  std::set<std::string> ids;
  size_t bytes = 0;
  bool any = false;
  while (group.changes.size() < kGroupDocuments && bytes < kGroupBytes) {
    if (!unit_.has_value()) unit_ = NextUnit();
    if (!unit_.has_value()) break;
    // Of two equal ids the later wins, and that is what a group of its own is for.
    bool again = false;
    for (const auto& change : unit_->changes) again = again || ids.contains(change.document().id());
    if (again) break;
    for (auto& change : unit_->changes) {
      ids.insert(change.document().id());
      group.changes.push_back(std::move(change));
    }
    bytes += unit_->bytes;
    group.left_out += unit_->left_out;
    group.next = unit_->next;
    unit_.reset();
    any = true;
  }
  if (!any) return std::nullopt;
  return group;
}

}  // namespace retro
