// One token of each of several sequences, as a computation whose shapes the caller has chosen: everything that changes
// from step to step is a number in a tensor. It asks the device nothing, so that a CUDA graph can be captured of it,
// and gives what RunDecoder gives up to rounding.
//
// It takes decode rows: a sequence of one new token, whose window does not slide. Prompts are fed by RunDecoder, as are
// all tokens of the models that HasFixedStep refuses. There are two halves, for the neighbours of a chunk that a row
// completes are encoded between them (Algorithm 1: after ATTN of the first CCA layer), which has no fixed shape.
//
// Letters: B rows, C blocks of m tokens of each row's context, H heads, c head size, V vocabulary.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "generator_service/model/chunk_memory.h"
#include "generator_service/model/config.h"
#include "generator_service/model/decode_slots.h"
#include "generator_service/model/kv_pool.h"
#include "generator_service/model/neighbours.h"
#include "generator_service/model/sequence_state.h"
#include "generator_service/model/weights.h"

namespace retro {

// Of each row. All are int64 on the device.
struct FixedStepInput {
  at::Tensor token;      // [B]
  at::Tensor held;       // [B] tokens before it in the cache: its place there
  at::Tensor block;      // [B] of the pool, which its key and value go into
  at::Tensor in_block;   // [B] and where in that block
  at::Tensor slot;       // [B] of DecodeSlots
  at::Tensor in_chunk;   // [B] place in the running chunk
  at::Tensor attending;  // [B] place in the span that attends to the slot's chunk
  at::Tensor blocks;     // [C, B] the context's blocks in order; past its end any block
  at::Tensor gate;       // [B] fp32, of what CCA adds; 0: the row attends to nothing
};

// The paper's form and its variants of norms, widths, matrices and activations.
bool HasFixedStep(const ModelConfig& config);

// Whether the sequence's next token is a decode row.
bool IsDecodeRow(const SequenceState& state);

// Writes keys and values to the pool's pages and conditioning to the slots; states are the caller's. What pages hold
// past a context's end must be numbers: KvPool::Clear. Rows that are the same may be given twice. -> h [B, d] after
// ATTN of the first CCA layer. It reads all of `input` but the gates and `attending`.
at::Tensor BeginFixedStep(const ModelWeights& weights, const ModelConfig& config, const KvPool& pool,
                          const DecodeSlots& slots, const FixedStepInput& input);

// A row of h whose token completes a chunk that takes neighbours.
struct CompletingRow {
  SequenceState* state = nullptr;
  int64_t row = 0;
  int64_t slot = 0;
  std::span<const ChunkNeighbours> neighbours;  // of the one chunk; no more than the slots have room for
};

// Encodes the chunks' neighbours and brings them to the slots. -> the chunks' memories; null: attended to by no row.
std::vector<ChunkMemoryPtr> EncodeForSlots(const ModelWeights& weights, const ModelConfig& config, DecodeSlots& slots,
                                           const at::Tensor& h, std::span<const CompletingRow> rows);

// -> logits [B, V], fp32.
at::Tensor EndFixedStep(const ModelWeights& weights, const ModelConfig& config, const KvPool& pool,
                        const DecodeSlots& slots, const FixedStepInput& input, const at::Tensor& h);

}  // namespace retro
