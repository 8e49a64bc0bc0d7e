#include "generator_service/engine/model_runner.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <utility>

#include "common/base/status_macros.h"
#include "common/torch/torch_status.h"

namespace retro {

ModelRunner::ModelRunner(const RetroModel& model, int threads, std::unique_ptr<FixedDecoder> decoder)
    : model_(model), threads_(threads), decoder_(std::move(decoder)) {}
ModelRunner::~ModelRunner() = default;

void ModelRunner::End(uint64_t sequence) {
  sequences_.erase(sequence);
  if (decoder_ != nullptr) decoder_->End(sequence);
}

// The last `wanted` rows of [rows, V] as plain floats: the model's own memory where it is the CPU's.
absl::StatusOr<std::span<const float>> ModelRunner::LastRows(const at::Tensor& logits, int64_t wanted) {
  return CatchTorch([&]() -> absl::StatusOr<std::span<const float>> {
    if (wanted == 0) return std::span<const float>();
    const at::Tensor& rows =
        logits_.emplace_back(logits.narrow(0, logits.size(0) - wanted, wanted).to(at::kCPU, at::kFloat).contiguous());
    return std::span(rows.const_data_ptr<float>(), static_cast<size_t>(rows.numel()));
  });
}

absl::Status ModelRunner::Begin(const StepItem& item) {
  SequenceOptions options;
  options.offset = item.offset;
  options.retrieval = item.retrieval;
  options.gate = item.gate;
  options.slide = item.slide;
  RETRO_ASSIGN_OR_RETURN(sequences_[item.sequence], model_.NewSequence(options));
  return absl::OkStatus();
}

absl::StatusOr<ModelRunner::Outputs> ModelRunner::Forward(std::span<const StepItem> items) {
  std::vector<Piece> pieces;
  pieces.reserve(items.size());
  for (const StepItem& item : items) {
    Piece& piece = pieces.emplace_back();
    piece.sequence = sequences_.at(item.sequence).get();
    piece.tokens = item.tokens;
    piece.neighbours = item.neighbours;
    piece.logit_rows = item.logit_rows;
    piece.want_mass = item.want_attention;
  }
  RETRO_ASSIGN_OR_RETURN(const std::vector<at::Tensor> logits, model_.Forward(pieces));
  Outputs outputs;
  outputs.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const absl::StatusOr<std::span<const float>> rows = LastRows(logits[i], items[i].logit_rows);
    if (!rows.ok()) {
      outputs.emplace_back(rows.status());
      continue;
    }
    StepOutput output{*rows, {}, std::nullopt};
    const auto& mass = pieces[i].sequence->attention_mass();
    if (items[i].want_attention && !mass.empty()) output.attention = mass.back();
    outputs.emplace_back(std::move(output));
  }
  return outputs;
}

std::optional<ModelRunner::Outputs> ModelRunner::StepFixed(std::span<const StepItem> items) {
  std::vector<FixedRow> rows;
  rows.reserve(items.size());
  for (const StepItem& item : items) {
    if (item.begins || item.tokens.size() != 1 || !item.sampling.has_value()) return std::nullopt;
    rows.push_back({item.sequence, &sequences_.at(item.sequence)->state(), item.tokens[0], *item.sampling});
  }
  auto sampled = decoder_->Step(rows);
  if (!sampled.has_value()) return std::nullopt;
  Outputs outputs;
  outputs.reserve(items.size());
  for (ScoredToken& token : *sampled) outputs.emplace_back(StepOutput{{}, {}, std::move(token)});
  return outputs;
}

ModelRunner::Outputs ModelRunner::Step(std::span<const StepItem> items) {
  // OpenMP keeps the number by thread, so it has to be said by the one that computes.
  if (threads_ > 0) at::set_num_threads(std::exchange(threads_, 0));
  logits_.clear();
  if (decoder_ != nullptr) {
    if (auto fixed = StepFixed(items)) return *std::move(fixed);
  }
  Outputs outputs(items.size(), absl::StatusOr<StepOutput>(StepOutput{}));
  std::vector<StepItem> ready;
  std::vector<size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    const absl::Status begun = items[i].begins ? Begin(items[i]) : absl::OkStatus();
    if (!begun.ok()) {
      outputs[i] = begun;
      continue;
    }
    ready.push_back(items[i]);
    places.push_back(i);
  }
  if (auto together = Forward(ready); together.ok()) {
    for (size_t i = 0; i < places.size(); ++i) outputs[places[i]] = std::move((*together)[i]);
    return outputs;
  }
  // No sequence has moved: one by one, so that only those fail whose fault it is.
  for (size_t i = 0; i < places.size(); ++i) {
    auto alone = Forward(std::span(&ready[i], 1));
    outputs[places[i]] = alone.ok() ? std::move(alone->front()) : absl::StatusOr<StepOutput>(alone.status());
  }
  return outputs;
}

}  // namespace retro
