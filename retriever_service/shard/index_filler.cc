#include "retriever_service/shard/index_filler.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/store/layout.h"

namespace retro {
namespace {

constexpr size_t kBatchRows = 4096;  // that are read, and given to the index, at once

}  // namespace

IndexFiller::IndexFiller(const Store& store, LiveCollection& collection) : store_(store), collection_(collection) {}

absl::Status IndexFiller::Run() {
  RETRO_ASSIGN_OR_RETURN(Documents missing, FindMissing());
  collection_.index->Restored();
  std::sort(missing.begin(), missing.end(),
            [](const auto& a, const auto& b) { return a->first_chunk_id < b->first_chunk_id; });
  for (size_t begin = 0, end = 0; begin < missing.size(); begin = end) {
    for (size_t rows = 0; end < missing.size() && rows < kBatchRows; ++end) rows += missing[end]->chunk_count;
    RETRO_RETURN_IF_ERROR(Take(std::span(missing).subspan(begin, end - begin)));
  }
  return absl::OkStatus();
}

absl::StatusOr<IndexFiller::Documents> IndexFiller::FindMissing() {
  Documents missing;
  RETRO_RETURN_IF_ERROR(
      store_.ScanDocuments(collection_.id, std::nullopt, /*at=*/nullptr,
                           [&](uint32_t, const shardpb::DocumentRecord& record) -> absl::StatusOr<bool> {
                             auto document = std::make_shared<const IndexedDocument>(ToIndexedDocument(record));
                             if (!collection_.index->Restore(document)) missing.push_back(std::move(document));
                             return true;
                           }));
  return missing;
}

absl::Status IndexFiller::Take(std::span<const std::shared_ptr<const IndexedDocument>> documents) {
  std::vector<uint64_t> ids;
  for (const auto& document : documents) {
    for (uint32_t i = 0; i < document->chunk_count; ++i) ids.push_back(ChunkIdAt(document->first_chunk_id, i));
  }
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> vectors,
                         store_.ReadVectors(collection_.id, ids, /*at=*/nullptr));
  std::vector<IndexChange> changes;
  auto vector = vectors.begin();
  for (const auto& document : documents) {
    std::string halves;
    for (uint32_t i = 0; i < document->chunk_count; ++i) halves += *vector++;
    if (halves.size() != size_t{collection_.spec.dimension()} * kHalfBytes * document->chunk_count) {
      return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged,
                   StrCat("the store in ", store_.path(), " is damaged: vectors of document \"", document->id,
                          "\" have the wrong size; restore it from a snapshot or a replica"));
    }
    changes.push_back({document->id, document, std::move(halves)});
  }
  collection_.index->Apply(std::move(changes), store_.last_position());
  // An index that cannot be sealed, as on a full disk, stays exact.
  collection_.index->WaitForMaintenance(kFrozenMax).IgnoreError();
  return absl::OkStatus();
}

}  // namespace retro
