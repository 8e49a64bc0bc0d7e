#include "cli/part_sweep.h"

#include <algorithm>
#include <utility>

#include "cli/connection.h"
#include "cli/document_reader.h"

namespace retro::cli {
namespace {

constexpr size_t kIdsMax = 10'000;               // of one DeleteDocuments
constexpr size_t kIdBytesMax = 512;              // a longer one cannot be stored
constexpr size_t kBatchDocuments = kIdsMax / 2;  // the dry run asks for two ids a document

bool IsPartOf(const pb::Document& document, const std::string& whole) {
  const auto values = document.metadata().find(kPartOfKey);
  return values != document.metadata().end() && values->second.values_size() == 1 &&
         values->second.values(0).string_value() == whole;
}

}  // namespace

grpc::Status PartSweep::Sweep(const std::vector<StoredDocument>& documents) {
  const std::span<const StoredDocument> all(documents);
  for (size_t begin = 0; begin < all.size(); begin += kBatchDocuments) {
    const size_t count = std::min(kBatchDocuments, all.size() - begin);
    if (grpc::Status status = SweepBatch(all.subspan(begin, count)); !status.ok()) return status;
  }
  return grpc::Status::OK;
}

grpc::Status PartSweep::SweepBatch(std::span<const StoredDocument> documents) {
  std::vector<std::string> suspects;
  for (const StoredDocument& document : documents) {
    if (document.part_count > 0) suspects.push_back(document.id);
    std::string next = PartId(document.id, document.part_count + 1);
    if (next.size() <= kIdBytesMax) suspects.push_back(std::move(next));
  }
  uint64_t count = 0;
  if (grpc::Status status = Delete(suspects, /*dry_run=*/true, &count); !status.ok() || count == 0) return status;
  std::vector<std::string> old_ids;
  for (const StoredDocument& document : documents) {
    if (grpc::Status status = FindOldIds(document, &old_ids); !status.ok()) return status;
  }
  for (size_t begin = 0; begin < old_ids.size(); begin += kIdsMax) {
    const size_t end = std::min(begin + kIdsMax, old_ids.size());
    const std::vector<std::string> ids(old_ids.begin() + static_cast<ptrdiff_t>(begin),
                                       old_ids.begin() + static_cast<ptrdiff_t>(end));
    if (grpc::Status status = Delete(ids, /*dry_run=*/false, &count); !status.ok()) return status;
    deleted_count_ += count;
  }
  return grpc::Status::OK;
}

grpc::Status PartSweep::FindOldIds(const StoredDocument& document, std::vector<std::string>* ids) {
  if (document.part_count > 0) ids->push_back(document.id);
  for (uint64_t number = document.part_count + 1;; ++number) {
    bool is_part = false;
    const grpc::Status status = LookAtPart(document, number, &is_part);
    if (!status.ok() || !is_part) return status;
    ids->push_back(PartId(document.id, number));
  }
}

grpc::Status PartSweep::LookAtPart(const StoredDocument& document, uint64_t number, bool* is_part) {
  pb::GetDocumentRequest request;
  request.set_collection(options_.collection);
  request.set_document_id(PartId(document.id, number));
  *is_part = false;
  if (request.document_id().size() > kIdBytesMax) return grpc::Status::OK;
  pb::GetDocumentResponse response;
  Call call(options_.timeout_s);
  grpc::Status status = stub_.GetDocument(call.context(), request, &response);
  *is_part = status.ok() && IsPartOf(response.document(), document.id);
  return status.error_code() == grpc::StatusCode::NOT_FOUND ? grpc::Status::OK : status;
}

grpc::Status PartSweep::Delete(const std::vector<std::string>& ids, bool dry_run, uint64_t* count) {
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
