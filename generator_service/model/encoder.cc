#include "generator_service/model/encoder.h"

#include "generator_service/model/attention.h"
#include "generator_service/model/blocks.h"

namespace retro {
namespace {

// Self-attention within each neighbour. x: [N, r, d'], absent: [N, 1, 1, r] or undefined.
at::Tensor AttendWithin(const AttentionWeights& w, const at::Tensor& x, const at::Tensor& absent, double eps) {
  const at::Tensor h = RmsNorm(x, w.norm, eps);
  const AttentionInput input{.query = SplitHeads(w.query(h), w.heads),
                             .key = SplitHeads(w.key(h), w.heads),
                             .value = SplitHeads(w.value(h), w.heads),
                             .positions = w.positions,
                             .absent = absent};
  return w.output(JoinHeads(RelativeAttention(w, input)));
}

// Attention onto the chunk's activations, eq. 7. x: [N, r, d'], conditioning: [C, m, d].
at::Tensor AttendToChunk(const AttentionWeights& w, const at::Tensor& x, const at::Tensor& conditioning,
                         const EncoderInput& input, double eps) {
  const auto for_neighbours = [&](const Linear& linear) {  // [N, H, m, c]
    return SplitHeads(linear(conditioning), w.heads).index_select(0, input.chunk_of);
  };
  AttentionInput attention{.query = SplitHeads(w.query(RmsNorm(x, w.norm, eps)), w.heads),
                           .key = for_neighbours(w.key),
                           .value = for_neighbours(w.value),
                           .positions = w.positions};
  if (input.conditioning_absent.defined()) {
    attention.absent = input.conditioning_absent.index_select(0, input.chunk_of).unsqueeze(1).unsqueeze(1);
  }
  return w.output(JoinHeads(RelativeAttention(w, attention)));
}

}  // namespace

at::Tensor EncodeNeighbours(const EncoderWeights& weights, const ModelConfig& config, const EncoderInput& input) {
  const double eps = config.norm_eps;
  const at::Tensor conditioning =
      config.conditioning_norm ? RmsNorm(input.conditioning, weights.conditioning_norm, eps) : input.conditioning;
  at::Tensor absent;
  if (config.mask_pad) absent = input.neighbours.eq(config.pad_id).unsqueeze(1).unsqueeze(1);  // [N, 1, 1, r]

  at::Tensor e = at::embedding(weights.embedding, input.neighbours);  // [N, r, d']
  for (const LayerWeights& layer : weights.layers) {
    e = e + AttendWithin(layer.attention, e, absent, eps);
    if (layer.cca) e = e + AttendToChunk(*layer.cca, e, conditioning, input, eps);
    e = e + Ffw(layer.ffw, e, eps);
  }
  return config.encoder_final_norm ? RmsNorm(e, weights.final_norm, eps) : e;
}

}  // namespace retro
