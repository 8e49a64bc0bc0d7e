#include "cli/part_sweep.h"

#include <algorithm>
#include <utility>

#include "cli/connection.h"
#include "cli/document_reader.h"

namespace retro::cli {
namespace {

constexpr size_t kIdsMax = 10'000;   // of one DeleteDocuments
constexpr size_t kIdBytesMax = 512;  // a longer one cannot be stored
constexpr uint64_t kMarkerParts = 2;
constexpr size_t kBatchDocuments = kIdsMax / (kMarkerParts + 1);
constexpr uint64_t kRangeParts = 1000;

bool IsPartOf(const pb::Document& document, const std::string& whole) {
  const auto values = document.metadata().find(kPartOfKey);
  return values != document.metadata().end() && values->second.values_size() == 1 &&
         values->second.values(0).string_value() == whole;
}

// Of so many parts from `first` on, as far as they can be stored: with the number an id only grows.
void AddPartIds(const std::string& document, uint64_t first, uint64_t count, std::vector<std::string>* ids) {
  for (uint64_t number = first; number < first + count; ++number) {
    std::string id = PartId(document, number);
    if (id.size() > kIdBytesMax) return;
    ids->push_back(std::move(id));
  }
}

}  // namespace

grpc::Status PartSweep::Sweep(const std::vector<StoredDocument>& documents) {
  const std::span<const StoredDocument> all(documents);
  for (size_t begin = 0; begin < all.size(); begin += kBatchDocuments) {
    OldIds old;
    grpc::Status status = FindOldIds(all.subspan(begin, std::min(kBatchDocuments, all.size() - begin)), &old);
    if (status.ok()) status = DeleteAll(old.others);
    if (status.ok()) status = DeleteAll(old.markers);
    if (!status.ok()) return status;
  }
  return grpc::Status::OK;
}

grpc::Status PartSweep::FindOldIds(std::span<const StoredDocument> documents, OldIds* old) {
  std::vector<std::string> markers;
  for (const StoredDocument& document : documents) {
    if (document.part_count > 0) markers.push_back(document.id);
    AddPartIds(document.id, document.part_count + 1, kMarkerParts, &markers);
  }
  uint64_t count = 0;
  if (grpc::Status status = Delete(markers, /*dry_run=*/true, &count); !status.ok() || count == 0) return status;
  if (documents.size() == 1) return FindOldIdsOf(documents.front(), old);
  const size_t half = documents.size() / 2;
  if (grpc::Status status = FindOldIds(documents.first(half), old); !status.ok()) return status;
  return FindOldIds(documents.subspan(half), old);
}

grpc::Status PartSweep::FindOldIdsOf(const StoredDocument& document, OldIds* old) {
  const uint64_t next = document.part_count + 1;
  std::vector<uint64_t> numbers;
  for (uint64_t first = next;; first += kRangeParts) {
    const size_t before = numbers.size();
    if (grpc::Status status = FindParts(document, first, &numbers); !status.ok()) return status;
    if (numbers.size() == before) break;
  }
  if (document.part_count > 0) old->markers.push_back(document.id);
  std::reverse(numbers.begin(), numbers.end());
  for (const uint64_t number : numbers) {
    std::vector<std::string>& ids = number < next + kMarkerParts ? old->markers : old->others;
    ids.push_back(PartId(document.id, number));
  }
  return grpc::Status::OK;
}

grpc::Status PartSweep::FindParts(const StoredDocument& document, uint64_t first, std::vector<uint64_t>* numbers) {
  std::vector<std::string> range;
  AddPartIds(document.id, first, kRangeParts, &range);
  uint64_t left = 0;
  if (grpc::Status status = Delete(range, /*dry_run=*/true, &left); !status.ok()) return status;
  for (uint64_t number = first; left > 0 && number < first + range.size(); ++number) {
    bool exists = false;
    bool is_part = false;
    if (grpc::Status status = LookAtPart(document, number, &exists, &is_part); !status.ok()) return status;
    if (exists) --left;
    if (is_part) numbers->push_back(number);
  }
  return grpc::Status::OK;
}

grpc::Status PartSweep::LookAtPart(const StoredDocument& document, uint64_t number, bool* exists, bool* is_part) {
  pb::GetDocumentRequest request;
  request.set_collection(options_.collection);
  request.set_document_id(PartId(document.id, number));
  pb::GetDocumentResponse response;
  Call call(options_.timeout_s);
  grpc::Status status = stub_.GetDocument(call.context(), request, &response);
  *exists = status.ok();
  *is_part = status.ok() && IsPartOf(response.document(), document.id);
  return status.error_code() == grpc::StatusCode::NOT_FOUND ? grpc::Status::OK : status;
}

grpc::Status PartSweep::DeleteAll(std::span<const std::string> ids) {
  for (size_t begin = 0; begin < ids.size(); begin += kIdsMax) {
    uint64_t count = 0;
    grpc::Status status = Delete(ids.subspan(begin, std::min(kIdsMax, ids.size() - begin)), /*dry_run=*/false, &count);
    if (!status.ok()) return status;
    deleted_count_ += count;
  }
  return grpc::Status::OK;
}

grpc::Status PartSweep::Delete(std::span<const std::string> ids, bool dry_run, uint64_t* count) {
  *count = 0;
  if (ids.empty()) return grpc::Status::OK;
  pb::DeleteDocumentsRequest request;
  request.set_collection(options_.collection);
  request.set_dry_run(dry_run);
  request.mutable_document_ids()->Assign(ids.begin(), ids.end());
  pb::DeleteDocumentsResponse response;
  Call call(options_.timeout_s);
  grpc::Status status = stub_.DeleteDocuments(call.context(), request, &response);
  *count = response.deleted_count();
  return status;
}

}  // namespace retro::cli
