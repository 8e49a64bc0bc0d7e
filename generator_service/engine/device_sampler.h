// The sampler as a computation of fixed shape on the model's device: what Sampler::Sample does, for a batch of rows.
//
// Both make the same choices in the same order of candidates. The host weighs them in fp32, this in fp64: where the
// drawn number or the bound of top_p falls within fp32's rounding (about 1e-7 of the sum) of a border between two
// tokens, they may differ.
#pragma once

#include <ATen/ATen.h>

#include <compare>

namespace retro {

// Of B rows, on the device; see SamplingSettings. V: vocabulary.
struct RowSampling {
  at::Tensor temperature;  // [B] fp64
  at::Tensor top_k;        // [B] int64
  at::Tensor top_p;        // [B] fp64
  at::Tensor penalty;      // [B] fp64
  at::Tensor uniform;      // [B] fp64: UniformAt of the row's seed and place
  at::Tensor seen;         // [B, V] bool
  at::Tensor bias;         // [B, V] fp32
};

// What a batch has need of; the rest of the work, and of RowSampling, is left out.
struct SamplingNeeds {
  bool adjusts = false;  // a row has a penalty or a bias: `seen` and `bias` are defined
  bool draws = false;    // a row has a temperature
  bool filters = false;  // one of those has top_k or top_p

  auto operator<=>(const SamplingNeeds&) const = default;
};

// logits: [B, V] fp32 -> [B, 2] fp64: the token, -1 where the logits are not finite numbers, and its log-probability
// of the plain softmax.
at::Tensor SampleRows(const at::Tensor& logits, const RowSampling& sampling, const SamplingNeeds& needs);

}  // namespace retro
