#include "trainer/evaluation/interpolation.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/evaluation/prediction.h"
#include "trainer/evaluation/text_report.h"
#include "trainer/nearest_chunks.h"

namespace retro {
namespace {

const std::vector<double> kSharpness = {4, 8, 16, 32};
const std::vector<double> kShares = {0.02, 0.05, 0.1, 0.2, 0.4};
constexpr int64_t kStoreBlock = 16384;  // entries whose scores are held at a time
constexpr float kLowest = -std::numeric_limits<float>::infinity();

at::Tensor ToUnitLength(const at::Tensor& rows) { return rows / rows.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12); }

// Bits of a document's predicted tokens: of the model alone, and of each mixture [share][sharpness].
struct MixtureBits {
  double bytes = 0;
  double model = 0;
  at::Tensor mixed = at::zeros({std::ssize(kShares), std::ssize(kSharpness)}, at::kDouble);
};

void AddBits(const at::Tensor& model, const at::Tensor& memory, MixtureBits& bits) {
  for (int64_t i = 0; i < std::ssize(kShares); ++i) {
    const at::Tensor mixed = model * (1 - kShares[i]) + memory * kShares[i];  // [sharpness, T]
    bits.mixed[i].sub_(mixed.log2().sum(1));
  }
  bits.model -= model.log2().sum().item<double>();
}

// The mixture that needs the fewest bits on every other document from the first on, judged on those between.
HeaderJson ChosenMixture(const std::vector<MixtureBits>& documents, uint64_t seed) {
  at::Tensor chosen_on = at::zeros_like(documents[0].mixed);
  for (size_t d = 0; d < documents.size(); d += 2) chosen_on += documents[d].mixed;
  const auto best = chosen_on.argmin().item<int64_t>();
  const int64_t share = best / std::ssize(kSharpness);
  const int64_t sharpness = best % std::ssize(kSharpness);
  std::vector<RatioTerm> alone, mixed, ratio;
  for (size_t d = 1; d < documents.size(); d += 2) {
    const auto bits = documents[d].mixed[share][sharpness].item<double>();
    alone.push_back({documents[d].model, documents[d].bytes});
    mixed.push_back({bits, documents[d].bytes});
    ratio.push_back({bits, documents[d].model});
  }
  const auto json = [&](const std::vector<RatioTerm>& terms) {
    const Interval interval = BootstrapRatio(terms, seed);
    return HeaderJson{{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
  };
  return {{"share", kShares[share]},    {"sharpness", kSharpness[sharpness]}, {"documents", mixed.size()},
          {"model_alone", json(alone)}, {"bits_per_byte", json(mixed)},       {"to_model_alone", json(ratio)}};
}

absl::StatusOr<TokenMemory> MakeStore(const EvaluatedModel& evaluated, const BaselineOptions& options,
                                      const Report& report) {
  TokenMemory store;
  for (const std::string& folder : options.store) {
    RETRO_ASSIGN_OR_RETURN(const DataSet data, DataSet::Open(folder));
    if (data.header().tokenizer_fingerprint != evaluated.info.tokenizer_fingerprint) {
      return absl::FailedPreconditionError(StrCat(folder, " was prepared with another tokenizer than the model's"));
    }
    const bool judged = data.header().fingerprint == evaluated.text.data->header().fingerprint;
    for (uint64_t document = 0; document < data.header().documents; ++document) {
      const uint64_t room = options.store_tokens_max - static_cast<uint64_t>(store.size());
      if (room == 0) break;
      RETRO_RETURN_IF_ERROR(
          PredictDocument(*evaluated.model, data, document, room + 1, nullptr, [&](const Prediction& said) {
            store.Append(said.hidden, said.targets, judged ? static_cast<int64_t>(document) : -1);
          }));
      report(StrCat(store.size(), " of at most ", options.store_tokens_max, " tokens in the kNN-LM's store"));
    }
  }
  return store;
}

class BaselineEvaluation {
 public:
  BaselineEvaluation(const EvaluatedModel& evaluated, const BaselineOptions& options, TokenMemory store)
      : evaluated_(evaluated), options_(options), store_(std::move(store)) {}

  absl::Status Add(uint64_t document) {
    MixtureBits& stored = stored_.emplace_back();
    MixtureBits& cached = cached_.emplace_back();
    TokenMemory cache;
    return PredictDocument(
        *evaluated_.model, *evaluated_.text.data, document, options_.tokens_max, nullptr, [&](const Prediction& said) {
          const at::Tensor targets = said.targets.to(at::kCPU);
          for (int64_t t = 0; t < targets.size(0); ++t) {
            stored.bytes += evaluated_.token_bytes[targets.const_data_ptr<int64_t>()[t]];
          }
          cached.bytes = stored.bytes;
          const at::Tensor model =
              at::softmax(said.logits, 1).gather(1, said.targets.unsqueeze(1)).squeeze(1).to(at::kDouble);
          TokenMemory::Query query = {.hidden = said.hidden,
                                      .targets = said.targets,
                                      .nearest = options_.nearest,
                                      .leave_out = static_cast<int64_t>(document)};
          AddBits(model, store_.TargetMass(query, kSharpness), stored);
          cache.Append(said.hidden, said.targets, -1);
          query.nearest = 0;
          query.leave_out.reset();
          query.newest_query = targets.size(0);
          AddBits(model, cache.TargetMass(query, kSharpness), cached);
          cache.KeepNewest(options_.cache_tokens);
        });
  }

  HeaderJson Figures() const {
    HeaderJson knn = ChosenMixture(stored_, options_.seed);
    knn["store_tokens"] = store_.size();
    knn["nearest"] = options_.nearest;
    HeaderJson cache = ChosenMixture(cached_, options_.seed);
    cache["cache_tokens"] = options_.cache_tokens;
    return {{"knn_lm", knn}, {"continuous_cache", cache}};
  }

 private:
  const EvaluatedModel& evaluated_;
  const BaselineOptions& options_;
  const TokenMemory store_;
  std::vector<MixtureBits> stored_, cached_;  // by document
};

}  // namespace

void TokenMemory::Append(const at::Tensor& keys, const at::Tensor& tokens, int64_t document) {
  size_ += tokens.size(0);
  const at::Tensor unit = ToUnitLength(keys);
  // Small pieces of one document become one block.
  if (!blocks_.empty() && blocks_.back().document == document && blocks_.back().tokens.size(0) < kStoreBlock) {
    Block& last = blocks_.back();
    last.keys = at::cat({last.keys, unit});
    last.tokens = at::cat({last.tokens, tokens});
  } else {
    blocks_.push_back({unit, tokens, document});
  }
}

void TokenMemory::KeepNewest(int64_t count) {
  for (Block& block : blocks_) {
    const int64_t surplus = std::min(std::max<int64_t>(size_ - count, 0), block.tokens.size(0));
    block.keys = block.keys.narrow(0, surplus, block.keys.size(0) - surplus);
    block.tokens = block.tokens.narrow(0, surplus, block.tokens.size(0) - surplus);
    size_ -= surplus;
  }
  std::erase_if(blocks_, [](const Block& block) { return block.tokens.size(0) == 0; });
}

at::Tensor TokenMemory::TargetMass(const Query& query, const std::vector<double>& sharpness) const {
  const int64_t rows = query.targets.size(0);
  const at::Tensor hidden = ToUnitLength(query.hidden);
  std::vector<at::Tensor> scores, tokens;  // [T, ...]
  for (const Block& block : blocks_) {
    if (block.document == query.leave_out) continue;
    const at::Tensor products = at::matmul(hidden, block.keys.t());
    const int64_t kept = query.nearest == 0 ? block.tokens.size(0) : std::min(query.nearest, block.tokens.size(0));
    if (kept == block.tokens.size(0)) {
      scores.push_back(products);
      tokens.push_back(block.tokens.unsqueeze(0).expand({rows, kept}));
    } else {
      const TopRows top = LargestOf(products, kept);
      scores.push_back(top.scores);
      tokens.push_back(block.tokens.index({top.rows}));
    }
  }
  if (scores.empty()) return at::zeros({std::ssize(sharpness), rows}, at::kDouble);
  at::Tensor all = at::cat(scores, 1).to(at::kDouble);
  at::Tensor followed = at::cat(tokens, 1);
  if (query.newest_query > 0) {
    const at::Tensor later =
        at::arange(all.size(1)).unsqueeze(0) >= (at::arange(rows) + (all.size(1) - query.newest_query)).unsqueeze(1);
    all = all.masked_fill(later.to(all.device()), kLowest);
  }
  if (query.nearest > 0 && all.size(1) > query.nearest) {
    const auto [top, places] = all.topk(query.nearest, 1);
    all = top;
    followed = followed.gather(1, places);
  }
  const at::Tensor match = followed.eq(query.targets.unsqueeze(1));
  std::vector<at::Tensor> masses;
  masses.reserve(sharpness.size());
  for (const double factor : sharpness) {
    masses.push_back((at::softmax(all * factor, 1) * match).sum(1).nan_to_num(0.0));
  }
  return at::stack(masses);
}

absl::StatusOr<HeaderJson> EvaluateBaselines(const EvaluatedModel& evaluated, const BaselineOptions& options,
                                             const Report& report) {
  const uint64_t documents = evaluated.text.data->header().documents;
  const uint64_t count = options.documents_max == 0 ? documents : std::min(documents, options.documents_max);
  if (count < 2) {
    return absl::InvalidArgumentError("one document to choose the mixture on and one to judge it on are needed");
  }
  RETRO_ASSIGN_OR_RETURN(TokenMemory store, MakeStore(evaluated, options, report));
  BaselineEvaluation evaluation(evaluated, options, std::move(store));
  for (uint64_t document = 0; document < count; ++document) {
    RETRO_RETURN_IF_ERROR(evaluation.Add(document));
    report(StrCat("scored ", document + 1, " of ", count, " documents"));
  }
  HeaderJson figures = {{"what", "baselines"}};
  figures.update(EvaluatedHeader(evaluated, options.evaluated));
  figures["seed"] = options.seed;
  figures["tokens_per_document_max"] = options.tokens_max;
  figures.update(evaluation.Figures());
  return figures;
}

}  // namespace retro
