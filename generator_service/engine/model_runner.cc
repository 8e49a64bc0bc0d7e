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

Piece ModelRunner::PieceOf(const StepItem& item) const {
  return {.sequence = sequences_.at(item.sequence).get(),
          .tokens = item.tokens,
          .neighbours = item.neighbours,
          .logit_rows = item.logit_rows,
          .want_mass = item.want_attention};
}

absl::StatusOr<ModelRunner::Outputs> ModelRunner::Forward(std::span<const StepItem> items) {
  std::vector<Piece> pieces;
  pieces.reserve(items.size());
  for (const StepItem& item : items) pieces.push_back(PieceOf(item));
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

void ModelRunner::StepFixed(std::span<const StepItem> items, MaybeOutputs& outputs) {
  std::vector<FixedRow> rows;
  std::vector<size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    const StepItem& item = items[i];
    if (item.begins || !item.sampling.has_value()) continue;
    const FixedRow row{item.sequence, PieceOf(item), *item.sampling};
    if (!decoder_->Takes(row)) continue;
    rows.push_back(row);
    places.push_back(i);
  }
  if (rows.empty()) return;
  auto sampled = decoder_->Step(rows);
  if (!sampled.has_value()) return;
  for (size_t i = 0; i < places.size(); ++i) outputs[places[i]] = StepOutput{{}, {}, std::move((*sampled)[i])};
}

void ModelRunner::StepFreely(std::span<const StepItem> items, MaybeOutputs& outputs) {
  std::vector<StepItem> ready;
  std::vector<size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    if (outputs[i].has_value()) continue;
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
    return;
  }
  // No sequence has moved: one by one, so that only those fail whose fault it is.
  for (size_t i = 0; i < places.size(); ++i) {
    auto alone = Forward(std::span(&ready[i], 1));
    outputs[places[i]] = alone.ok() ? std::move(alone->front()) : absl::StatusOr<StepOutput>(alone.status());
  }
}

ModelRunner::Outputs ModelRunner::Step(std::span<const StepItem> items) {
  // OpenMP keeps the number by thread, so it has to be said by the one that computes.
  if (threads_ > 0) at::set_num_threads(std::exchange(threads_, 0));
  logits_.clear();
  MaybeOutputs outputs(items.size());
  if (decoder_ != nullptr) StepFixed(items, outputs);
  StepFreely(items, outputs);
  Outputs made;
  made.reserve(items.size());
  for (auto& output : outputs) made.push_back(*std::move(output));
  return made;
}

}  // namespace retro
