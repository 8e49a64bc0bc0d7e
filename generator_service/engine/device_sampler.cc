#include "generator_service/engine/device_sampler.h"

#include <limits>

namespace retro {
namespace {

at::Tensor Adjusted(const at::Tensor& logits, const RowSampling& sampling) {
  const at::Tensor penalty = sampling.penalty.to(at::kFloat).unsqueeze(1);
  const at::Tensor penalised = at::where(logits > 0, logits / penalty, logits * penalty)
                                   .clamp(std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max());
  return at::where(sampling.seen & (penalty != 1), penalised, logits) + sampling.bias;
}

// Of rows whose candidates fall in likelihood, the weights that top_k and top_p leave; 0 for the others.
at::Tensor Filtered(const at::Tensor& weights, const RowSampling& sampling, const at::Tensor& places) {
  const at::Tensor top_k = sampling.top_k.unsqueeze(1);
  const at::Tensor top_p = sampling.top_p.unsqueeze(1);
  const at::Tensor best = weights * ((top_k <= 0) | (places < top_k));
  const at::Tensor reached = best.cumsum(1);
  const at::Tensor sum = reached.slice(1, -1);
  const at::Tensor before = at::constant_pad_nd(reached.slice(1, 0, -1), {1, 0});
  const at::Tensor candidates = top_k.clamp_max(weights.size(1)).masked_fill(top_k <= 0, weights.size(1));
  const at::Tensor nucleus = (before < top_p * sum) & (best >= (1.0 - top_p) / candidates * sum);
  return best * (nucleus | (top_p >= 1));
}

// [B, 1]
at::Tensor Drawn(const at::Tensor& logits, const RowSampling& sampling, const SamplingNeeds& needs) {
  const at::Tensor places = at::arange(logits.size(1), sampling.top_k.options());
  const at::Tensor temperature = sampling.temperature.unsqueeze(1);
  at::Tensor candidates = logits;
  at::Tensor ids;  // of the candidates; undefined: 0, 1, 2, ...
  if (needs.filters) {
    // Equal ones stay in the order of their ids. Unfiltered rows draw in that order too.
    const at::Tensor falling = std::get<1>(at::sort(logits, /*stable=*/true, /*dim=*/1, /*descending=*/true));
    const at::Tensor filtered = (sampling.top_k > 0) | (sampling.top_p < 1);
    ids = at::where(filtered.unsqueeze(1), falling, places);
    candidates = logits.gather(1, ids);
  }
  const at::Tensor exact = candidates.to(at::kDouble);
  at::Tensor weights =
      ((exact - exact.amax(1, /*keepdim=*/true)) / temperature.masked_fill(temperature <= 0, 1.0)).exp();
  if (needs.filters) weights = Filtered(weights, sampling, places);
  const at::Tensor reached = weights.cumsum(1);
  const at::Tensor target = sampling.uniform.unsqueeze(1) * reached.slice(1, -1);
  // Rounding may leave a remainder; the last one that can be drawn takes it.
  const at::Tensor last = (places * (weights > 0)).amax(1, /*keepdim=*/true);
  const at::Tensor place = at::minimum((reached <= target).sum(1, /*keepdim=*/true), last);
  return ids.defined() ? ids.gather(1, place) : place;
}

}  // namespace

at::Tensor SampleRows(const at::Tensor& logits, const RowSampling& sampling, const SamplingNeeds& needs) {
  const at::Tensor exact = logits.to(at::kDouble);
  const at::Tensor largest = exact.amax(1, /*keepdim=*/true);  // NaN if one is
  const at::Tensor log_sum = largest + (exact - largest).exp().sum(1, /*keepdim=*/true).log();
  const at::Tensor adjusted = needs.adjusts ? Adjusted(logits, sampling) : logits;
  at::Tensor id = adjusted.argmax(1, /*keepdim=*/true);  // the first of equal ones
  if (needs.draws) id = at::where(sampling.temperature.unsqueeze(1) > 0, Drawn(adjusted, sampling, needs), id);
  const at::Tensor logprob = exact.gather(1, id) - log_sum;
  return at::cat({id.masked_fill(largest.isfinite().logical_not(), -1).to(at::kDouble), logprob}, 1);
}

}  // namespace retro
