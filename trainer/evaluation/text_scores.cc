#include "trainer/evaluation/text_scores.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "trainer/evaluation/prediction.h"
#include "trainer/window_sampler.h"

namespace retro {
namespace {

constexpr std::pair<NeighbourForm, std::string_view> kForms[] = {{NeighbourForm::kWhole, "whole"},
                                                                 {NeighbourForm::kAlone, "alone"},
                                                                 {NeighbourForm::kContinuation, "continuation"},
                                                                 {NeighbourForm::kRandom, "random"}};

// Numbers of k chunks of the databases, none of them of the chunk's own document.
std::vector<uint32_t> RandomNumbers(const EvaluatedModel& evaluated, uint64_t chunk, const ScoringOptions& options) {
  const NeighbourTable& table = *evaluated.text.table();
  const uint64_t document = evaluated.text.data->chunks()[chunk].document;
  std::vector<uint32_t> numbers;
  constexpr uint64_t kDrawsMax = 1 << 10;
  for (uint64_t draw = 0; draw < kDrawsMax && std::ssize(numbers) < options.k; ++draw) {
    const auto number = static_cast<uint32_t>(MixedBits(options.seed, chunk * kDrawsMax + draw) % table.numbers());
    if (!table.IsOfDocument(number, document)) numbers.push_back(number);
  }
  return numbers;
}

absl::Status CheckScoring(const EvaluatedModel& evaluated, const ScoringOptions& options) {
  if (options.k == 0) return absl::OkStatus();
  if (evaluated.info.config.cca_layers.empty()) {
    return absl::InvalidArgumentError("a model without CCA takes no neighbours: k must be 0");
  }
  const NeighbourTable* table = evaluated.text.table();
  if (options.form != NeighbourForm::kRandom && options.k > table->header().k) {
    return absl::InvalidArgumentError(
        StrCat("k ", options.k, " is more than the ", table->header().k, " neighbours that were prepared"));
  }
  const bool half = options.form == NeighbourForm::kAlone || options.form == NeighbourForm::kContinuation;
  if (half && !evaluated.info.config.mask_pad) {
    return absl::InvalidArgumentError("the model reads pad tokens: it takes no halves of neighbours");
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view NeighbourFormName(NeighbourForm form) {
  return std::ranges::find(kForms, form, &std::pair<NeighbourForm, std::string_view>::first)->second;
}

absl::StatusOr<NeighbourForm> NeighbourFormFromName(std::string_view name) {
  for (const auto& [form, form_name] : kForms) {
    if (form_name == name) return form;
  }
  return absl::InvalidArgumentError(StrCat("no form of neighbours '", name, "': whole, alone, continuation or random"));
}

ChunkNeighbours NeighboursOf(const EvaluatedModel& evaluated, uint64_t chunk, const ScoringOptions& options) {
  const NeighbourTable& table = *evaluated.text.table();
  const ModelConfig& config = evaluated.info.config;
  std::vector<uint32_t> numbers;
  if (options.form == NeighbourForm::kRandom) {
    numbers = RandomNumbers(evaluated, chunk, options);
  } else {
    const std::span<const uint32_t> found = table.Of(chunk).first(options.k);
    std::ranges::copy_if(found, std::back_inserter(numbers), [](uint32_t number) { return number != kNoNeighbour; });
  }
  ChunkNeighbours result = {.count = std::ssize(numbers)};
  result.tokens.resize(numbers.size() * config.neighbour_length);
  const auto pad = static_cast<TokenId>(config.pad_id);
  for (size_t j = 0; j < numbers.size(); ++j) {
    const std::span<TokenId> row(result.tokens.data() + j * config.neighbour_length, config.neighbour_length);
    table.CopyTokens(numbers[j], pad, row);
    if (options.form == NeighbourForm::kAlone) std::ranges::fill(row.subspan(config.chunk_length), pad);
    if (options.form == NeighbourForm::kContinuation) std::ranges::fill(row.first(config.chunk_length), pad);
  }
  return result;
}

absl::StatusOr<std::vector<ChunkScore>> ScoreDocument(const EvaluatedModel& evaluated, uint64_t document,
                                                      const ScoringOptions& options) {
  RETRO_RETURN_IF_ERROR(CheckScoring(evaluated, options));
  PredictionOptions predicted = {.tokens_max = options.tokens_max};
  if (options.k > 0) predicted.neighbours = [&](uint64_t chunk) { return NeighboursOf(evaluated, chunk, options); };
  const auto m = static_cast<uint64_t>(evaluated.info.config.chunk_length);
  std::vector<ChunkScore> scores;
  RETRO_RETURN_IF_ERROR(
      PredictDocument(*evaluated.model, *evaluated.text.data, document, predicted, [&](const Prediction& said) {
        const at::Tensor losses =
            at::cross_entropy_loss(said.logits, said.targets, {}, at::Reduction::None).to(at::kCPU, at::kDouble);
        const at::Tensor targets = said.targets.to(at::kCPU);
        for (int64_t t = 0; t < losses.size(0); ++t) {
          const uint64_t chunk = (said.first + static_cast<uint64_t>(t)) / m;
          if (scores.size() <= chunk) scores.resize(chunk + 1);
          scores[chunk].bits += losses.const_data_ptr<double>()[t] * std::numbers::log2e;
          scores[chunk].bytes += evaluated.token_bytes[targets.const_data_ptr<int64_t>()[t]];
        }
      }));
  return scores;
}

double SharedShare(const EvaluatedModel& evaluated, uint64_t chunk, int64_t k) {
  const NeighbourTable& table = *evaluated.text.table();
  const DataSet& data = *evaluated.text.data;
  const ModelConfig& config = evaluated.info.config;
  const std::vector<TokenId> own = data.ChunkTokens(chunk);
  const auto pad = static_cast<TokenId>(config.pad_id);
  std::vector<TokenId> neighbour(config.neighbour_length);
  int64_t longest = 0;
  const uint64_t before =
      std::max(data.first_chunk(data.chunks()[chunk].document), chunk - std::min<uint64_t>(chunk, 1));
  for (uint64_t found_for = before; found_for <= chunk; ++found_for) {
    for (const uint32_t number : table.Of(found_for).first(std::min(k, table.header().k))) {
      if (number == kNoNeighbour) break;
      table.CopyTokens(number, pad, neighbour);
      longest = std::max(longest, LongestCommonRun(own, neighbour, pad));
    }
  }
  return static_cast<double>(longest) / static_cast<double>(config.chunk_length);
}

int64_t LongestCommonRun(std::span<const TokenId> a, std::span<const TokenId> b, TokenId pad) {
  std::vector<int64_t> run(b.size() + 1);  // that ends before b[j] and the current token of a
  int64_t longest = 0;
  for (const TokenId id : a) {
    for (size_t j = b.size(); j > 0; --j) {
      run[j] = id == b[j - 1] && id != pad ? run[j - 1] + 1 : 0;
      longest = std::max(longest, run[j]);
    }
  }
  return longest;
}

}  // namespace retro
