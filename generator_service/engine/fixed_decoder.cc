#include "generator_service/engine/fixed_decoder.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/match.h"
#include "common/base/status_macros.h"
#include "common/torch/device.h"
#include "common/torch/torch_status.h"
#include "generator_service/engine/random.h"

namespace retro {
namespace {

// Whether the row's token completes a chunk that takes neighbours.
bool Completes(const FixedRow& row) { return !row.piece.neighbours.empty(); }

// Rows of the integers; the blocks follow.
enum IntegerField : int64_t { kToken, kHeld, kBlock, kInBlock, kSlot, kInChunk, kAttending, kTopK, kIntegerFields };
enum RealField : int64_t { kGate, kTemperature, kTopP, kPenalty, kUniform, kRealFields };

constexpr int64_t kBlocksLeast = 4;  // of a shape
constexpr size_t kGraphsMax = 256;   // a step with none of them left makes room for new ones

// The driver's own, beside torch's, has no type of its own.
bool IsLackOfMemory(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || absl::StrContains(status.message(), "out of memory") ||
         absl::StrContains(status.message(), "ALLOC_FAILED");
}

int64_t PowerOfTwo(int64_t least) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(least))); }

int64_t BlocksMax(const ModelConfig& config) {
  return (config.max_length + config.chunk_length - 1) / config.chunk_length;
}

bool Adjusts(const SamplingSettings& settings) {
  return settings.repetition_penalty != 1.0F || !settings.logit_bias.empty();
}

// The first `rows` columns of what begins there: [fields, rows].
at::Tensor Fields(const at::Tensor& memory, int64_t fields, int64_t rows) {
  return memory.narrow(0, 0, fields * rows).view({fields, rows});
}

}  // namespace

absl::StatusOr<std::unique_ptr<FixedDecoder>> FixedDecoder::Create(const RetroModel& model,
                                                                   FixedDecoderOptions options) {
  if (!HasFixedStep(model.config())) {
    return absl::FailedPreconditionError("a model of this form has no decode step of fixed shape");
  }
  RETRO_ASSIGN_OR_RETURN(const at::Device device, OpenDevice(model.device()));
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<FixedDecoder>> {
    const c10::InferenceMode inference;
    model.pool().Clear();
    return std::unique_ptr<FixedDecoder>(new FixedDecoder(model, std::move(options), device));
  });
}

FixedDecoder::FixedDecoder(const RetroModel& model, FixedDecoderOptions options, const at::Device& device)
    : model_(model),
      options_(std::move(options)),
      device_(device),
      blocks_max_(BlocksMax(model.config())),
      captures_(options_.captures && device.is_cuda()),
      slots_(model.config(), model.weights(), options_.rows_max, options_.neighbours_max, device),
      fresh_(options_.rows_max),
      seen_count_(options_.rows_max),
      biased_(options_.rows_max) {
  for (int64_t slot = options_.rows_max - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  const int64_t rows = PowerOfTwo(options_.rows_max);
  const auto here = at::TensorOptions().pinned_memory(device.is_cuda());
  const auto there = at::TensorOptions().device(device);
  const auto make = [&](const std::vector<int64_t>& shape, at::ScalarType type, at::Tensor& host, at::Tensor& own) {
    host = at::zeros(shape, here.dtype(type));
    own = at::zeros(shape, there.dtype(type));
  };
  make({(kIntegerFields + blocks_max_) * rows}, at::kLong, host_integers_, integers_);
  make({kRealFields * rows}, at::kDouble, host_reals_, reals_);
  make({rows, 2}, at::kDouble, host_results_, results_);
  hidden_ = at::zeros({rows, model.config().width}, there.dtype(at::kFloat));
  seen_ = at::zeros({options_.rows_max, model.config().vocabulary}, there.dtype(at::kBool));
  bias_ = at::zeros({options_.rows_max, model.config().vocabulary}, there.dtype(at::kFloat));
}

void FixedDecoder::End(uint64_t sequence) {
  const auto found = slot_of_.find(sequence);
  if (found == slot_of_.end()) return;
  slots_.Release(found->second);
  free_slots_.push_back(found->second);
  slot_of_.erase(found);
}

bool FixedDecoder::HasSlot(uint64_t sequence) {
  if (slot_of_.contains(sequence)) return true;
  if (free_slots_.empty()) return false;
  const int64_t slot = free_slots_.back();
  free_slots_.pop_back();
  slot_of_[sequence] = slot;
  fresh_[slot] = true;
  return true;
}

// What its last sequence left there goes.
void FixedDecoder::BeginSlot(int64_t slot, const SamplingSettings& settings) {
  if (!fresh_[slot]) return;
  seen_count_[slot] = 0;
  if (settings.repetition_penalty != 1.0F) seen_[slot].zero_();
  if (biased_[slot]) bias_[slot].zero_();
  biased_[slot] = !settings.logit_bias.empty();
  if (biased_[slot]) {
    std::vector<int64_t> ids;
    std::vector<float> values;
    for (const auto& [id, bias] : settings.logit_bias) {
      ids.push_back(id);
      values.push_back(bias);
    }
    bias_[slot].index_put_({at::tensor(ids, at::kLong).to(device_)}, at::tensor(values, at::kFloat).to(device_));
  }
  fresh_[slot] = false;  // last: what fails is done again
}

// The token that is fed is noted by the step itself; others are new after steps that were not of fixed shape.
void FixedDecoder::BringSeen(int64_t slot, const FixedRow& row) {
  if (row.sampling.settings->repetition_penalty == 1.0F) return;
  const std::vector<TokenId>& ids = row.sampling.seen->ids();
  const std::vector<int64_t> added(ids.begin() + static_cast<ptrdiff_t>(seen_count_[slot]), ids.end());
  if (added.empty() || (added.size() == 1 && added[0] == row.piece.tokens[0])) return;
  seen_[slot].index_fill_(0, at::tensor(added, at::kLong).to(device_), true);
}

bool FixedDecoder::Takes(const FixedRow& row) {
  if (gave_up_ || row.piece.tokens.size() != 1 || !model_.CheckPiece(row.piece).ok()) return false;
  const SequenceState& state = row.piece.sequence->state();
  const bool fits = Completes(row) ? slots_.HasRoomFor(row.piece.neighbours[0]) : slots_.HasRoomFor(state);
  return IsDecodeRow(state) && fits && row.piece.sequence->state().cache->Reserve(state.held() + 1) &&
         HasSlot(row.sequence);
}

FixedDecoder::Shape FixedDecoder::ShapeOf(std::span<const FixedRow> rows) const {
  Shape shape{.rows = PowerOfTwo(static_cast<int64_t>(rows.size())), .blocks = kBlocksLeast};
  for (const FixedRow& row : rows) {
    const SamplingSettings& settings = *row.sampling.settings;
    const bool draws = settings.temperature > 0;
    shape.blocks =
        std::max(shape.blocks, PowerOfTwo(static_cast<int64_t>(row.piece.sequence->state().cache->blocks().size())));
    shape.needs.adjusts |= Adjusts(settings);
    shape.needs.draws |= draws;
    shape.needs.filters |= draws && (settings.top_k > 0 || settings.top_p < 1);
  }
  shape.blocks = std::min(shape.blocks, blocks_max_);
  return shape;
}

void FixedDecoder::FillPlaces(const FixedRow& row, int64_t column, const Shape& shape) {
  const SequenceState& state = row.piece.sequence->state();
  const ChunkGeometry& geometry = state.geometry;
  const std::span<const int64_t> blocks = state.cache->blocks();
  const int64_t m = model_.config().chunk_length;
  const int64_t attended = geometry.AttendedChunk(state.position);
  int64_t* integers = host_integers_.data_ptr<int64_t>() + column;
  const auto set = [&](int64_t field, int64_t value) { integers[field * shape.rows] = value; };
  set(kToken, row.piece.tokens[0]);
  set(kHeld, state.held());
  set(kBlock, blocks[state.held() / m]);
  set(kInBlock, state.held() % m);
  set(kSlot, slot_of_.at(row.sequence));
  set(kInChunk, state.position - geometry.Begin(geometry.CompleteChunks(state.position)));
  set(kAttending, attended >= 0 ? geometry.Place(state.position, attended) : 0);
  set(kTopK, row.sampling.settings->top_k);
  for (int64_t i = 0; i < shape.blocks; ++i) {
    set(kIntegerFields + i, blocks[i < static_cast<int64_t>(blocks.size()) ? i : 0]);
  }
}

void FixedDecoder::FillNumbers(const FixedRow& row, bool attends, int64_t column, const Shape& shape) {
  const SamplingSettings& settings = *row.sampling.settings;
  double* reals = host_reals_.data_ptr<double>() + column;
  reals[kGate * shape.rows] = attends ? row.piece.sequence->state().options.gate.value_or(model_.config().gate) : 0;
  reals[kTemperature * shape.rows] = settings.temperature;
  reals[kTopP * shape.rows] = settings.top_p;
  reals[kPenalty * shape.rows] = settings.repetition_penalty;
  reals[kUniform * shape.rows] = UniformAt(settings.seed, row.sampling.index);
}

// The first half from integers_ to hidden_, the second from there and reals_ to results_, on the device alone.
void FixedDecoder::Compute(const Shape& shape) {
  const at::Tensor integers = Fields(integers_, kIntegerFields + shape.blocks, shape.rows);
  const at::Tensor reals = Fields(reals_, kRealFields, shape.rows);
  const at::Tensor hidden = hidden_.narrow(0, 0, shape.rows);
  const FixedStepInput input{.token = integers[kToken],
                             .held = integers[kHeld],
                             .block = integers[kBlock],
                             .in_block = integers[kInBlock],
                             .slot = integers[kSlot],
                             .in_chunk = integers[kInChunk],
                             .attending = integers[kAttending],
                             .blocks = integers.slice(0, kIntegerFields),
                             .gate = reals[kGate].to(at::kFloat)};
  if (!shape.ends) {
    hidden.copy_(BeginFixedStep(model_.weights(), model_.config(), model_.pool(), slots_, input));
    return;
  }
  RowSampling sampling{.temperature = reals[kTemperature],
                       .top_k = integers[kTopK],
                       .top_p = reals[kTopP],
                       .penalty = reals[kPenalty],
                       .uniform = reals[kUniform]};
  if (shape.needs.adjusts) {
    seen_.index_put_({input.slot, input.token}, at::ones({1}, seen_.options()));
    sampling.seen = seen_.index_select(0, input.slot);
    sampling.bias = bias_.index_select(0, input.slot);
  }
  const at::Tensor logits = EndFixedStep(model_.weights(), model_.config(), model_.pool(), slots_, input, hidden);
  results_.narrow(0, 0, shape.rows).copy_(SampleRows(logits, sampling, shape.needs));
}

void FixedDecoder::Run(const Shape& shape) {
  auto found = graphs_.find(shape);
  if (found == graphs_.end()) {
    if (!captures_ || steps_ < captures_from_step_) return Compute(shape);
    auto graph = CaptureCudaGraph(device_, [&] { Compute(shape); });
    if (!graph.ok()) {
      if (IsLackOfMemory(graph.status())) {
        PauseCapturing(graph.status());
      } else {
        StopCapturing(graph.status());
      }
      return Compute(shape);
    }
    if (graphs_.size() == kGraphsMax) graphs_.clear();
    found = graphs_.emplace(shape, *std::move(graph)).first;
  }
  found->second->Replay();
}

std::vector<ChunkMemoryPtr> FixedDecoder::Memories(std::span<const FixedRow> rows) {
  std::vector<CompletingRow> completing;
  std::vector<ChunkMemoryPtr> memories;
  for (size_t i = 0; i < rows.size(); ++i) {
    SequenceState& state = rows[i].piece.sequence->state();
    memories.push_back(state.memory);
    if (!Completes(rows[i])) continue;
    completing.push_back({&state, static_cast<int64_t>(i), slot_of_.at(rows[i].sequence), rows[i].piece.neighbours});
  }
  if (completing.empty()) return memories;
  const std::vector<ChunkMemoryPtr> made =
      EncodeForSlots(model_.weights(), model_.config(), slots_, hidden_, completing);
  for (size_t i = 0; i < made.size(); ++i) memories[completing[i].row] = made[i];
  return memories;
}

void FixedDecoder::Move(const FixedRow& row, ChunkMemoryPtr memory) {
  const int64_t slot = slot_of_.at(row.sequence);
  if (row.sampling.settings->repetition_penalty != 1.0F) seen_count_[slot] = row.sampling.seen->ids().size();
  SequenceState& state = row.piece.sequence->state();
  const int64_t in_chunk = state.position - state.geometry.Begin(state.geometry.CompleteChunks(state.position));
  ++state.position;
  state.memory = std::move(memory);
  if (!state.options.retrieval) return;
  state.conditioning = Completes(row) ? at::Tensor() : slots_.ConditioningOf(slot, in_chunk + 1);
}

std::optional<std::vector<ScoredToken>> FixedDecoder::StepOrThrow(std::span<const FixedRow> rows) {
  Shape shape = ShapeOf(rows);
  const auto for_columns = [&](const auto& fill) {
    for (int64_t column = 0; column < shape.rows; ++column) {
      fill(column, column < static_cast<int64_t>(rows.size()) ? column : 0);
    }
  };
  const auto send = [&](at::Tensor& own, const at::Tensor& host, int64_t count) {
    own.narrow(0, 0, count).copy_(host.narrow(0, 0, count), /*non_blocking=*/true);
  };
  for (const FixedRow& row : rows) {
    const int64_t slot = slot_of_.at(row.sequence);
    BeginSlot(slot, *row.sampling.settings);
    slots_.BringConditioning(slot, row.piece.sequence->state());
    if (!Completes(row)) slots_.BringMemory(slot, row.piece.sequence->state().memory);
    BringSeen(slot, row);
  }
  for_columns([&](int64_t column, int64_t row) { FillPlaces(rows[row], column, shape); });
  send(integers_, host_integers_, (kIntegerFields + shape.blocks) * shape.rows);
  Run({.rows = shape.rows, .blocks = shape.blocks});
  std::vector<ChunkMemoryPtr> memories = Memories(rows);
  for_columns([&](int64_t column, int64_t row) { FillNumbers(rows[row], memories[row] != nullptr, column, shape); });
  send(reals_, host_reals_, kRealFields * shape.rows);
  shape.ends = true;
  Run(shape);
  host_results_.narrow(0, 0, shape.rows).copy_(results_.narrow(0, 0, shape.rows));
  const double* results = host_results_.const_data_ptr<double>();
  std::vector<ScoredToken> tokens;
  tokens.reserve(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (results[2 * i] < 0) return std::nullopt;
    tokens.push_back({static_cast<TokenId>(results[2 * i]), static_cast<float>(results[2 * i + 1]), {}});
  }
  for (size_t i = 0; i < rows.size(); ++i) Move(rows[i], std::move(memories[i]));
  ++steps_;
  rows_taken_ += static_cast<int64_t>(rows.size());
  return tokens;
}

void FixedDecoder::PauseCapturing(const absl::Status& why) {
  captures_from_step_ = steps_ + capture_pause_;
  capture_pause_ *= 2;
  if (options_.on_failure) options_.on_failure(why);
}

void FixedDecoder::StopCapturing(const absl::Status& why) {
  captures_ = false;
  graphs_.clear();
  if (options_.on_failure) options_.on_failure(why);
}

std::optional<std::vector<ScoredToken>> FixedDecoder::Step(std::span<const FixedRow> rows) {
  std::optional<std::vector<ScoredToken>> tokens;
  const absl::Status done = CatchTorch([&] {
    const c10::InferenceMode inference;
    tokens = StepOrThrow(rows);
    return absl::OkStatus();
  });
  if (done.ok()) return tokens;
  if (!IsLackOfMemory(done)) {  // of which there may be enough the next time
    gave_up_ = true;
    StopCapturing(done);
  }
  return std::nullopt;
}

}  // namespace retro
