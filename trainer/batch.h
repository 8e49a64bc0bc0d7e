// What one training step reads: windows of equal length with their neighbours, as tensors. A batch is a function of the
// data, the options and its number alone.
//
// Letters: B windows, n tokens, m chunk length, C chunks with neighbours, k neighbours, r neighbour length.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "generator_service/model/config.h"
#include "trainer/data_set.h"
#include "trainer/neighbour_table.h"
#include "trainer/window_sampler.h"

namespace retro {

inline constexpr int64_t kIgnoredLabel = -100;

struct Batch {
  at::Tensor tokens;    // [B, n] int64
  at::Tensor labels;    // [B, n] int64: the next token of the same document, or kIgnoredLabel: after its eos, and pad
  at::Tensor segments;  // [B, n] int32: tokens of a window see those of their own segment alone
  int64_t label_count = 0;

  // Of the chunks with neighbours; undefined if there is none.
  at::Tensor neighbours;         // [C * k, r] int64
  at::Tensor neighbour_absent;   // [C, k * r] bool: pad under mask_pad, and neighbours that a chunk lacks
  at::Tensor chunk_of;           // [C * k] int64
  at::Tensor chunk_rows;         // [C * m] int64: the chunk's own rows of B * n; B * n for those before a short one
  at::Tensor chunk_rows_absent;  // [C, m] bool; undefined if all chunks are full
  at::Tensor attending_rows;     // [C * m] int64: the rows that attend to it, by place; B * n where there is none

  Batch To(const at::Device& device) const;  // without waiting for the copies
};

struct BatchOptions {
  int64_t windows = 8;   // B
  int64_t length = 512;  // n, a multiple of m
  int64_t k = 2;
  uint64_t seed = 1;
  double offset_share = 0.25;        // of the windows begin with a short chunk, where their text allows it
  double no_retrieval_share = 0.15;  // of the windows have no neighbours
  bool shuffle = true;
};

// INVALID_ARGUMENT: a window of so many tokens is none of the model's.
absl::Status CheckWindowLength(const ModelConfig& config, int64_t length);

// One thread at a time. Data set and table must outlive it; `neighbours` may be null: none.
class BatchMaker {
 public:
  BatchMaker(const DataSet& data, const NeighbourTable* neighbours, const ModelConfig& config,
             const BatchOptions& options);

  uint64_t windows_per_epoch() const { return sampler_.windows_per_epoch(); }
  // On the CPU.
  Batch Make(uint64_t number);
  // The label_count of Make(number), for much less work.
  int64_t CountLabels(uint64_t number);

 private:
  struct Rows;  // a batch in the making
  struct SlotTokens {
    uint64_t first;
    int64_t count;
  };
  uint64_t EosOf(uint64_t document) const;
  SlotTokens TokensOf(const Slot& slot) const;
  bool GoesOn(const Slot& slot, const Slot& next) const;
  void AddWindow(uint64_t index, Rows& rows);
  int64_t Offset(const std::vector<Slot>& window, uint64_t index) const;
  uint64_t WindowSeed() const { return options_.seed ^ 0x77696e646f77; }  // a stream of its own
  void AddTokens(const std::vector<Slot>& window, int64_t offset, Rows& rows) const;
  void AddChunks(const std::vector<Slot>& window, int64_t offset, Rows& rows) const;
  bool AddNeighbours(uint64_t chunk, Rows& rows) const;

  const DataSet& data_;
  const NeighbourTable* const neighbours_;
  const ModelConfig& config_;
  const BatchOptions options_;
  WindowSampler sampler_;
};

}  // namespace retro
