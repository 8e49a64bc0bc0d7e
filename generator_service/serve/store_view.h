// What is known of the store behind the retriever: the fingerprints that decide whether neighbours have to be tokenised
// again, and whether the model meets what it was trained with.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "generator_service/serve/served_model.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

struct CollectionView {
  bool same_tokenizer = false;
};

// Any thread.
class StoreView {
 public:
  // `model` must outlive this.
  explicit StoreView(const ServedModel& model) : model_(model) {}

  // After each GetInfo; nothing: the retriever did not answer.
  void Update(std::optional<retriever::v1::GetInfoResponse> info);

  // Nothing while the collection is not known; ask the retriever again.
  std::optional<CollectionView> Find(const std::string& collection) const;
  bool reachable() const;
  // What people ought to know: another embedder or tokenizer than the model's, no retriever.
  std::vector<std::string> Warnings() const;

 private:
  const ServedModel& model_;
  mutable Mutex mutex_;
  bool reachable_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<retriever::v1::GetInfoResponse> info_ ABSL_GUARDED_BY(mutex_);  // the last that was seen
};

}  // namespace retro
