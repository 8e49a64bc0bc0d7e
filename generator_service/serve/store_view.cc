#include "generator_service/serve/store_view.h"

#include "common/base/hash.h"
#include "common/base/strings.h"

namespace retro {
namespace {

std::string Quoted(const std::string& collection) {
  return collection.empty() ? "the default collection" : StrCat("collection \"", collection, "\"");
}

}  // namespace

void StoreView::Update(std::optional<retriever::v1::GetInfoResponse> info) {
  MutexLock lock(mutex_);
  reachable_ = info.has_value();
  if (info.has_value()) info_ = std::move(info);
}

std::optional<CollectionView> StoreView::Find(const std::string& collection) const {
  MutexLock lock(mutex_);
  if (!info_.has_value()) return std::nullopt;
  for (const auto& spec : info_->collections()) {
    if (spec.name() != collection) continue;
    return CollectionView{spec.tokenizer_fingerprint() == model_.tokenizer->fingerprint()};
  }
  return std::nullopt;
}

bool StoreView::reachable() const {
  MutexLock lock(mutex_);
  return reachable_;
}

std::vector<std::string> StoreView::Warnings() const {
  MutexLock lock(mutex_);
  std::vector<std::string> warnings;
  if (!model_.can_retrieve()) {
    warnings.emplace_back("the model has no chunked cross-attention: it generates without neighbours");
    return warnings;
  }
  if (!reachable_)
    warnings.emplace_back(
        "the retriever does not answer: is retro-retriever running at the address that --retriever names?");
  if (!info_.has_value()) return warnings;
  if (model_.info.embedder_fingerprint.empty()) {
    warnings.emplace_back("it is not recorded which embedder the model was trained with, if with any");
  } else if (HexEncode(info_->embedder_fingerprint()) != model_.info.embedder_fingerprint) {
    warnings.push_back(StrCat("the store's embedder (", info_->embedder_name(),
                              ") is not the one that found the neighbours in training: neighbours may serve less"));
  }
  for (const auto& spec : info_->collections()) {
    if (spec.tokenizer_fingerprint() == model_.tokenizer->fingerprint()) continue;
    warnings.push_back(
        StrCat(Quoted(spec.name()), " has another tokenizer than the model: its neighbours are tokenised again"));
  }
  return warnings;
}

}  // namespace retro
