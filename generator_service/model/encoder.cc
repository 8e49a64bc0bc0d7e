#include "generator_service/model/encoder.h"

#include "generator_service/model/attention.h"
#include "generator_service/model/ffw.h"

namespace retro {
namespace {

// Self-attention within each neighbour. x: [N, r, d'].
at::Tensor AttendWithin(const AttentionWeights& w, const ModelConfig& config, const EncoderInput& input,
                        const at::Tensor& x) {
  const at::Tensor h = w.norm(x);
  const at::Tensor places = at::arange(x.size(1), input.neighbours.options());
  AttentionInput attention{.query = w.rotary(SplitHeads(w.query(h), w.heads), places),
                           .key = w.rotary(SplitHeads(w.key(h), w.heads), places),
                           .value = SplitHeads(w.value(h), w.heads)};
  if (config.mask_pad) {
    MaskPadKeys(config, input.neighbours.eq(config.pad_id).unsqueeze(1).unsqueeze(1), attention);  // [N, 1, 1, r]
  }
  return w.output(JoinHeads(RelativeAttention(w, attention)));
}

// Attention onto the chunk's activations, eq. 7. h: [N, r, d'] after the norm, conditioning: [C, m, d].
at::Tensor AttendToChunk(const AttentionWeights& w, const ModelConfig& config, const EncoderInput& input,
                         const at::Tensor& h, const at::Tensor& conditioning) {
  const auto places = [&](const at::Tensor& rows) { return at::arange(rows.size(1), input.neighbours.options()); };
  const at::Tensor keys = w.rotary(SplitHeads(w.key(conditioning), w.heads), places(conditioning));
  const at::Tensor values = SplitHeads(w.value(conditioning), w.heads);
  AttentionInput attention{.query = w.rotary(SplitHeads(w.query(h), w.heads), places(h)),
                           .key = keys.index_select(0, input.chunk_of),  // [N, H, m, c]
                           .value = values.index_select(0, input.chunk_of)};
  if (input.conditioning_absent.defined()) {
    MaskPadKeys(config, input.conditioning_absent.index_select(0, input.chunk_of).unsqueeze(1).unsqueeze(1), attention);
  }
  return w.output(JoinHeads(RelativeAttention(w, attention)));
}

}  // namespace

at::Tensor EncodeNeighbours(const EncoderWeights& weights, const ModelConfig& config, const EncoderInput& input) {
  const at::Tensor conditioning =
      config.conditioning_norm ? weights.conditioning_norm(input.conditioning) : input.conditioning;
  at::Tensor e = weights.embedding(input.neighbours);  // [N, r, d']
  if (weights.positions.defined()) e = e + weights.positions;
  for (const LayerWeights& layer : weights.layers) {
    e = layer.attention.residual(e, AttendWithin(layer.attention, config, input, e));
    if (layer.cca) {
      const at::Tensor h = layer.cca->norm(e);
      const at::Tensor added = AttendToChunk(*layer.cca, config, input, h, conditioning);
      e = layer.cca->residual(config.encoder_cca_residual_normed ? h : e, added);
    }
    e = layer.ffw.residual(e, Ffw(layer.ffw, e));
  }
  if (config.encoder_final_norm) e = weights.final_norm(e);
  return weights.projection ? (*weights.projection)(e) : e;
}

}  // namespace retro
