// What a model says of every token of a document, in one sweep over it: the context slides over whole chunks, as it
// does when serving (context_window.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "generator_service/model/model.h"
#include "generator_service/model/neighbours.h"
#include "trainer/data_set.h"

namespace retro {

// Of T consecutive tokens of a document. All on the model's device.
struct Prediction {
  uint64_t first = 0;  // place in the document of the first of them
  at::Tensor logits;   // [T, V] fp32; undefined where none were asked for
  at::Tensor hidden;   // [T, d]: H after the last layer, of the token before
  at::Tensor targets;  // [T] int64: the tokens
};

// The neighbours of a chunk of the data set, by its number.
using ChunkNeighboursOf = std::function<ChunkNeighbours(uint64_t chunk)>;

struct PredictionOptions {
  uint64_t tokens_max = 0;       // of the document, its first ones; 0: all
  ChunkNeighboursOf neighbours;  // empty: no retrieval
  bool logits = true;            // false: hidden states alone
};

// Calls `use` with the predictions of all tokens but the first, which nothing comes before, in order. The eos after the
// text is none of them.
absl::Status PredictDocument(const RetroModel& model, const DataSet& data, uint64_t document,
                             const PredictionOptions& options, const std::function<void(const Prediction&)>& use);

}  // namespace retro
