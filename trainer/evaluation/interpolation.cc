#include "trainer/evaluation/interpolation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/evaluation/prediction.h"
#include "trainer/evaluation/text_report.h"
#include "trainer/window_sampler.h"

namespace retro {
namespace {

const std::vector<double> kSharpness = {4, 8, 16, 32, 64, 128, 256, 512};
const std::vector<double> kShares = {0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98};
constexpr int kFolds = 2;

struct DocumentBits {
  std::string id;
  std::string family;
  int fold = 0;
  double bytes = 0;
  double model = 0;
  at::Tensor stored, cached;  // [share, sharpness]: of each mixture
};

// Whether a mixture is one that lies at the grid's border, beyond which a better one may be.
bool IsAtEdge(int64_t place, size_t count) { return place == 0 || place + 1 == static_cast<int64_t>(count); }

// Families take turns; a document of none is its own.
void AssignFolds(std::vector<DocumentBits>& documents) {
  std::map<std::string, int> folds;
  int next = 0;
  for (DocumentBits& document : documents) {
    const auto [place, is_new] = folds.try_emplace(document.family, next);
    const bool own = document.family.empty() || is_new;
    document.fold = own ? next : place->second;
    if (own) next = (next + 1) % kFolds;
  }
}

void AddBits(const at::Tensor& model, const at::Tensor& memory, at::Tensor& bits) {
  for (int64_t i = 0; i < std::ssize(kShares); ++i) {
    const at::Tensor mixed = at::where(memory.isnan(), model, model * (1 - kShares[i]) + memory * kShares[i]);
    bits[i].sub_(mixed.log2().sum(1).to(at::kCPU));
  }
}

// The mixtures of one memory, chosen and judged.
class Mixtures {
 public:
  Mixtures(std::span<const DocumentBits> documents, at::Tensor DocumentBits::*bits)
      : documents_(documents), bits_(bits) {
    best_.reserve(kFolds);
    for (int fold = 0; fold < kFolds; ++fold) {
      at::Tensor sum = at::zeros({std::ssize(kShares), std::ssize(kSharpness)}, at::kDouble);
      for (const DocumentBits& document : documents) {
        if (document.fold != fold) sum += document.*bits;
      }
      best_.push_back(sum.argmin().item<int64_t>());
    }
  }

  // Under what was chosen on the other half.
  double Bits(const DocumentBits& document) const {
    return (document.*bits_).flatten()[best_[document.fold]].item<double>();
  }

  HeaderJson Figures(uint64_t seed) const {
    std::vector<RatioTerm> alone, mixed, ratio;
    for (std::vector<RatioTerm>* terms : {&alone, &mixed, &ratio}) terms->reserve(documents_.size());
    for (const DocumentBits& document : documents_) {
      alone.push_back({document.model, document.bytes, document.family});
      mixed.push_back({Bits(document), document.bytes, document.family});
      ratio.push_back({Bits(document), document.model, document.family});
    }
    HeaderJson chosen = HeaderJson::array();
    for (const int64_t best : best_) {
      const auto sharpnesses = std::ssize(kSharpness);
      const int64_t share = best / sharpnesses;
      const int64_t sharpness = best % sharpnesses;
      chosen.push_back({{"share", kShares[share]},
                        {"sharpness", kSharpness[sharpness]},
                        {"at_edge", IsAtEdge(share, kShares.size()) || IsAtEdge(sharpness, kSharpness.size())}});
    }
    return {{"chosen", chosen},
            {"documents", documents_.size()},
            {"model_alone", ToJson(BootstrapRatio(alone, seed))},
            {"bits_per_byte", ToJson(BootstrapRatio(mixed, seed))},
            {"to_model_alone", ToJson(BootstrapRatio(ratio, seed))}};
  }

 private:
  const std::span<const DocumentBits> documents_;
  at::Tensor DocumentBits::*bits_;
  std::vector<int64_t> best_;  // by fold that is judged
};

class BaselineEvaluation {
 public:
  BaselineEvaluation(const EvaluatedModel& evaluated, const BaselineOptions& options, const Report& report)
      : evaluated_(evaluated), options_(options), report_(report), same_(data().header().documents) {}

  absl::StatusOr<HeaderJson> Run() {
    RETRO_RETURN_IF_ERROR(ListDocuments());
    for (const std::string& folder : options_.store) RETRO_RETURN_IF_ERROR(Store(folder));
    KnnStore::Options knn = options_.knn;
    knn.nearest = std::min(knn.nearest, std::max<int64_t>(store_.size(), 1));
    store_.Build(knn);
    for (uint64_t d = 0; d < documents_.size(); ++d) {
      RETRO_RETURN_IF_ERROR(Judge(d));
      report_(StrCat("scored ", d + 1, " of ", documents_.size(), " documents"));
    }
    return Figures();
  }

 private:
  const DataSet& data() const { return *evaluated_.text.data; }

  absl::Status ListDocuments() {
    RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> ids, DocumentIds(data()));
    RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> families, DocumentFamilies(data()));
    const size_t count = options_.documents_max == 0 ? ids.size() : std::min(ids.size(), options_.documents_max);
    for (size_t d = 0; d < count; ++d) {
      DocumentBits& document = documents_.emplace_back();
      document.id = ids[d];
      document.family = families[d];
      document.stored = at::zeros({std::ssize(kShares), std::ssize(kSharpness)}, at::kDouble);
      document.cached = at::zeros_like(document.stored);
    }
    AssignFolds(documents_);
    const bool both = std::ranges::any_of(documents_, [](const DocumentBits& d) { return d.fold > 0; });
    if (both) return absl::OkStatus();
    return absl::InvalidArgumentError("a family to choose the mixture on and one to judge it on are needed");
  }

  absl::Status Store(const std::string& folder) {
    RETRO_ASSIGN_OR_RETURN(const DataSet database, DataSet::Open(folder));
    if (database.header().tokenizer_fingerprint != evaluated_.info.tokenizer_fingerprint) {
      return absl::FailedPreconditionError(StrCat(folder, " was prepared with another tokenizer than the model's"));
    }
    RETRO_ASSIGN_OR_RETURN(const std::vector<std::vector<uint64_t>> same, SameDocuments(data(), database));
    for (size_t d = 0; d < same.size(); ++d) {
      for (const uint64_t theirs : same[d]) same_[d].push_back(first_document_ + static_cast<int64_t>(theirs));
    }
    std::vector<uint64_t> order(database.header().documents);
    std::iota(order.begin(), order.end(), uint64_t{0});
    std::ranges::sort(order, {}, [&](uint64_t document) { return MixedBits(options_.seed, document); });
    const int64_t before = store_.size();
    for (const uint64_t document : order) {
      const uint64_t room = options_.store_tokens_max - static_cast<uint64_t>(store_.size());
      if (room == 0) break;
      RETRO_RETURN_IF_ERROR(PredictDocument(*evaluated_.model, database, document,
                                            {.tokens_max = room + 1, .logits = false}, [&](const Prediction& said) {
                                              store_.Append(said.hidden, said.targets,
                                                            first_document_ + static_cast<int64_t>(document));
                                            }));
      report_(StrCat(store_.size(), " of at most ", options_.store_tokens_max, " tokens in the kNN-LM's store"));
    }
    first_document_ += static_cast<int64_t>(order.size());
    stores_.push_back({{"name", std::filesystem::weakly_canonical(folder).filename().string()},
                       {"fingerprint", database.header().fingerprint},
                       {"tokens", store_.size() - before}});
    return absl::OkStatus();
  }

  absl::Status Judge(uint64_t number) {
    DocumentBits& document = documents_[number];
    ContinuousCache cache(options_.cache_tokens);
    return PredictDocument(
        *evaluated_.model, data(), number, {.tokens_max = options_.tokens_max}, [&](const Prediction& said) {
          const at::Tensor targets = said.targets.to(at::kCPU);
          for (int64_t t = 0; t < targets.size(0); ++t) {
            document.bytes += evaluated_.token_bytes[targets.const_data_ptr<int64_t>()[t]];
          }
          const at::Tensor model =
              at::softmax(said.logits, 1).gather(1, said.targets.unsqueeze(1)).squeeze(1).to(at::kDouble);
          document.model -= model.log2().sum().item<double>();
          const MemoryQuery query = {said.hidden, said.targets, kSharpness};
          AddBits(model, store_.TargetMass(query, same_[number]), document.stored);
          AddBits(model, cache.TargetMassThenAppend(query), document.cached);
        });
  }

  HeaderJson Figures() const {
    const Mixtures stored(documents_, &DocumentBits::stored);
    const Mixtures cached(documents_, &DocumentBits::cached);
    HeaderJson knn = stored.Figures(options_.seed);
    knn.update({{"store_tokens", store_.size()},
                {"nearest", options_.knn.nearest},
                {"lists", store_.options().lists},
                {"probed", store_.options().probed}});
    HeaderJson cache = cached.Figures(options_.seed);
    cache["cache_tokens"] = options_.cache_tokens;
    HeaderJson documents = HeaderJson::array();
    for (const DocumentBits& document : documents_) {
      documents.push_back({{"id", document.id},
                           {"family", document.family},
                           {"bytes", static_cast<uint64_t>(document.bytes)},
                           {"model", document.model},
                           {"knn_lm", stored.Bits(document)},
                           {"continuous_cache", cached.Bits(document)}});
    }
    HeaderJson figures = {{"what", "baselines"}};
    figures.update(EvaluatedHeader(evaluated_, options_.evaluated));
    figures.update({{"store", stores_},
                    {"seed", options_.seed},
                    {"tokens_per_document_max", options_.tokens_max},
                    {"knn_lm", knn},
                    {"continuous_cache", cache},
                    {"documents", documents}});
    return figures;
  }

  const EvaluatedModel& evaluated_;
  const BaselineOptions& options_;
  const Report& report_;
  std::vector<DocumentBits> documents_;
  std::vector<std::vector<int64_t>> same_;  // by document: the store's documents that are the same
  KnnStore store_;
  int64_t first_document_ = 0;  // of the folder that is stored: documents are numbered through all
  HeaderJson stores_ = HeaderJson::array();
};

}  // namespace

absl::StatusOr<HeaderJson> EvaluateBaselines(const EvaluatedModel& evaluated, const BaselineOptions& options,
                                             const Report& report) {
  return BaselineEvaluation(evaluated, options, report).Run();
}

}  // namespace retro
