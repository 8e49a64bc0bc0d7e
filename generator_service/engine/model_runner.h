// The step function over a RETRO model: slices of several sequences as one batched forward, but for those that a
// FixedDecoder takes, if there is one.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "generator_service/engine/fixed_decoder.h"
#include "generator_service/engine/step.h"
#include "generator_service/model/model.h"

namespace retro {

class ModelRunner : public StepRunner {
 public:
  // `model` must outlive this. All calls come from one thread; torch gives it `threads` workers, 0: one a core.
  // `decoder`: of the same model; may be null.
  explicit ModelRunner(const RetroModel& model, int threads = 0, std::unique_ptr<FixedDecoder> decoder = nullptr);
  ~ModelRunner() override;

  using Outputs = std::vector<absl::StatusOr<StepOutput>>;

  Outputs Step(std::span<const StepItem> items) override;
  void End(uint64_t sequence) override;

 private:
  absl::Status Begin(const StepItem& item);
  Piece PieceOf(const StepItem& item) const;
  using MaybeOutputs = std::vector<std::optional<absl::StatusOr<StepOutput>>>;

  // Of those items that the fixed decoder takes.
  void StepFixed(std::span<const StepItem> items, MaybeOutputs& outputs);
  // Of the others.
  void StepFreely(std::span<const StepItem> items, MaybeOutputs& outputs);
  // On an error no sequence has moved; an item whose logits could not be read has moved and fails.
  absl::StatusOr<Outputs> Forward(std::span<const StepItem> items);
  absl::StatusOr<std::span<const float>> LastRows(const at::Tensor& logits, int64_t wanted);

  const RetroModel& model_;
  int threads_;  // 0 once they are set
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_;
  std::unique_ptr<FixedDecoder> decoder_;
  std::vector<at::Tensor> logits_;  // of the last step: what its outputs point into
};

}  // namespace retro
