// Fills an index from the store when a shard is opened: documents that its sealed segments hold are attached to them,
// the vectors of all others are read.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
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
  // What is in no segment; its vectors follow.
  absl::Status Take(std::shared_ptr<const IndexedDocument> document, const std::string& halves);
  absl::Status TakeMissing(std::vector<std::shared_ptr<const IndexedDocument>> documents);
  absl::Status RunOverDocuments();
  void Flush();

  const Store& store_;
  LiveCollection& collection_;
  std::vector<IndexChange> batch_;
  size_t batch_rows_ = 0;
};

}  // namespace retro
