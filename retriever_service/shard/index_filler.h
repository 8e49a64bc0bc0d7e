// Fills an index from the store when a shard is opened: documents that its sealed segments hold are attached to them,
// the vectors of all others are read, in the order of their chunk ids. Those of an index that was lost are sealed
// meanwhile: no more of them lie in memory than if they came from writers.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "retriever_service/index/indexed_document.h"
#include "retriever_service/index/vector_index.h"
#include "retriever_service/shard/live_collections.h"
#include "retriever_service/store/store.h"

namespace retro {

class IndexFiller {
 public:
  // Both must outlive this.
  IndexFiller(const Store& store, LiveCollection& collection);

  // DATA_LOSS (STORE_DAMAGED) if the store contradicts itself.
  absl::Status Run();

 private:
  using Documents = std::vector<std::shared_ptr<const IndexedDocument>>;
  absl::StatusOr<Documents> FindMissing();
  // Their vectors are read.
  absl::Status Take(std::span<const std::shared_ptr<const IndexedDocument>> documents);

  const Store& store_;
  LiveCollection& collection_;
};

}  // namespace retro
