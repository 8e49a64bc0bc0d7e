// Decoding by steps of fixed shape: one token of each sequence goes in, the next token of each comes out, all that lies
// between stays on the device: see fixed_step.h and device_sampler.h. On CUDA each half of a shape is captured as a
// graph, and a step is two launches, with the encoder between them where rows complete chunks.
//
// It takes only decode rows (fixed_step.h) whose logits serve nothing but to sample; a row is taken or not whatever
// others there are, but that each sequence needs a slot. Shapes are powers of two of rows and of blocks of context;
// rows that are lacking repeat the first one, which writes the same once more.
#pragma once

#include <ATen/ATen.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/torch/cuda_graph.h"
#include "generator_service/engine/device_sampler.h"
#include "generator_service/engine/step.h"
#include "generator_service/model/decode_slots.h"
#include "generator_service/model/fixed_step.h"
#include "generator_service/model/model.h"

namespace retro {

struct FixedDecoderOptions {
  int64_t rows_max = 16;       // sequences that it takes at once, each with a slot of its own
  int64_t neighbours_max = 4;  // of a chunk
  bool captures = true;        // on CUDA
  // Called if from now on it makes no graphs, or takes no rows; for a lack of memory, for some steps. Optional.
  std::function<void(const absl::Status&)> on_failure;
};

// The next token of one sequence.
struct FixedRow {
  uint64_t sequence = 0;
  Piece piece;  // of one token
  SamplingOrder sampling;
};

// One thread.
class FixedDecoder {
 public:
  // Before the model's first sequence. `model` must outlive this. FAILED_PRECONDITION for a model that has no fixed
  // step, RESOURCE_EXHAUSTED where the device has no room.
  static absl::StatusOr<std::unique_ptr<FixedDecoder>> Create(const RetroModel& model, FixedDecoderOptions options);

  // Whether the sequence's next token can be made by Step. Then it has its slot and room for that token.
  bool Takes(const FixedRow& row);
  // The next tokens of rows that it takes, with the sequences moved on. Nothing, and no sequence has moved, if
  // something is wrong with them: what that is, RetroModel::Forward says.
  std::optional<std::vector<ScoredToken>> Step(std::span<const FixedRow> rows);
  // Frees the sequence's slot. Unknown ones are ignored.
  void End(uint64_t sequence);

  int64_t steps() const { return steps_; }
  int64_t rows() const { return rows_taken_; }  // of all steps
  size_t graphs() const { return graphs_.size(); }

 private:
  struct Shape {
    int64_t rows = 0;
    int64_t blocks = 0;
    SamplingNeeds needs;
    bool ends = false;  // the second half; of the first, needs are none
    auto operator<=>(const Shape&) const = default;
  };

  FixedDecoder(const RetroModel& model, FixedDecoderOptions options, const at::Device& device);

  Shape ShapeOf(std::span<const FixedRow> rows) const;
  // It has one, or takes one that is free.
  bool HasSlot(uint64_t sequence);
  void BeginSlot(int64_t slot, const SamplingSettings& settings);
  void BringSeen(int64_t slot, const FixedRow& row);
  void FillPlaces(const FixedRow& row, int64_t column, const Shape& shape);
  void FillNumbers(const FixedRow& row, bool attends, int64_t column, const Shape& shape);
  // The memories of the chunks that the rows attend to once the first half is done.
  std::vector<ChunkMemoryPtr> Memories(std::span<const FixedRow> rows);
  void Run(const Shape& shape);
  void Compute(const Shape& shape);
  void Move(const FixedRow& row, ChunkMemoryPtr memory);
  std::optional<std::vector<ScoredToken>> StepOrThrow(std::span<const FixedRow> rows);
  void PauseCapturing(const absl::Status& why);
  void StopCapturing(const absl::Status& why);

  const RetroModel& model_;
  const FixedDecoderOptions options_;
  const at::Device device_;
  const int64_t blocks_max_;
  bool captures_;
  bool gave_up_ = false;
  int64_t captures_from_step_ = 0;
  int64_t capture_pause_ = 64;  // steps, after the next lack of memory
  int64_t steps_ = 0;
  int64_t rows_taken_ = 0;

  DecodeSlots slots_;
  std::map<uint64_t, int64_t> slot_of_;  // by sequence
  std::vector<int64_t> free_slots_;
  std::vector<bool> fresh_;         // by slot: its sequence has made no step
  std::vector<size_t> seen_count_;  // by slot: how many of the sequence's seen ids are in seen_, once it has moved
  std::vector<bool> biased_;        // by slot: whether its row of bias_ has anything
  at::Tensor seen_;                 // [slots, V] bool
  at::Tensor bias_;                 // [slots, V] fp32

  // What goes to the device and comes back: [fields, rows] of the shape at hand, at the beginning of each.
  at::Tensor host_integers_, integers_;  // int64
  at::Tensor host_reals_, reals_;        // fp64
  at::Tensor host_results_, results_;    // [rows, 2] fp64
  at::Tensor hidden_;                    // [rows, d] fp32, from the first half to the second
  std::map<Shape, std::unique_ptr<CudaGraph>> graphs_;
};

}  // namespace retro
