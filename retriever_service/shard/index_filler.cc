#include "retriever_service/shard/index_filler.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr size_t kBatchRows = 4096;  // that are read, or given to the index, at once

}  // namespace

IndexFiller::IndexFiller(const Store& store, LiveCollection& collection) : store_(store), collection_(collection) {}

absl::Status IndexFiller::Run() {
  if (collection_.index->has_sealed_segments()) {
    RETRO_RETURN_IF_ERROR(RunOverDocuments());
  } else {  // everything is needed: one pass over all vectors is faster than looking them up
    RETRO_RETURN_IF_ERROR(store_.ScanVectors(
        collection_.id, /*at=*/nullptr, [&](const shardpb::DocumentRecord& record, const std::string& halves) {
          return Take(std::make_shared<const IndexedDocument>(ToIndexedDocument(record)), halves);
        }));
  }
  Flush();
  return absl::OkStatus();
}

absl::Status IndexFiller::RunOverDocuments() {
  std::vector<std::shared_ptr<const IndexedDocument>> missing;
  size_t missing_rows = 0;
  RETRO_RETURN_IF_ERROR(
      store_.ScanDocuments(collection_.id, std::nullopt, /*at=*/nullptr,
                           [&](uint32_t, const shardpb::DocumentRecord& record) -> absl::StatusOr<bool> {
                             auto document = std::make_shared<const IndexedDocument>(ToIndexedDocument(record));
                             if (collection_.index->Restore(document)) return true;
                             missing_rows += document->chunk_count;
                             missing.push_back(std::move(document));
                             if (missing_rows >= kBatchRows) {
                               RETRO_RETURN_IF_ERROR(TakeMissing(std::exchange(missing, {})));
                               missing_rows = 0;
                             }
                             return true;
                           }));
  return TakeMissing(std::move(missing));
}

absl::Status IndexFiller::TakeMissing(std::vector<std::shared_ptr<const IndexedDocument>> documents) {
  std::vector<uint64_t> ids;
  for (const auto& document : documents) {
    for (uint32_t i = 0; i < document->chunk_count; ++i) ids.push_back(ChunkIdAt(document->first_chunk_id, i));
  }
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> vectors,
                         store_.ReadVectors(collection_.id, ids, /*at=*/nullptr));
  auto vector = vectors.begin();
  for (auto& document : documents) {
    std::string halves;
    for (uint32_t i = 0; i < document->chunk_count; ++i) halves += *vector++;
    RETRO_RETURN_IF_ERROR(Take(std::move(document), halves));
  }
  return absl::OkStatus();
}

absl::Status IndexFiller::Take(std::shared_ptr<const IndexedDocument> document, const std::string& halves) {
  const size_t dimension = collection_.spec.dimension();
  if (halves.size() != dimension * kHalfBytes * document->chunk_count) {
    return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                 StrCat("the store in ", store_.path(), " is damaged: vectors of document \"", document->id,
                        "\" have the wrong size; restore it from a snapshot or a replica"));
  }
  batch_rows_ += document->chunk_count;
  std::string id = document->id;
  batch_.push_back({std::move(id), std::move(document), halves});
  if (batch_rows_ >= kBatchRows) Flush();
  return absl::OkStatus();
}

void IndexFiller::Flush() {
  collection_.index->Apply(std::exchange(batch_, {}), store_.last_position());
  batch_rows_ = 0;
}

}  // namespace retro
