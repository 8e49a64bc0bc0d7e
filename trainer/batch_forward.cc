#include "trainer/batch_forward.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "common/base/strings.h"
#include "generator_service/model/attention.h"
#include "generator_service/model/encoder.h"
#include "generator_service/model/ffw.h"
#include "trainer/recompute.h"

namespace retro {
namespace {

constexpr int64_t kQueryBlock = 256;  // queries whose logits are held at a time, which spares the masked half

// Rows of [N, width], where number N stands for a row of zeros.
at::Tensor SelectRows(const at::Tensor& rows, const at::Tensor& numbers) {
  return at::constant_pad_nd(rows, {0, 0, 0, 1}).index_select(0, numbers);
}

// ATTN without its residual: each token over those before it in its segment. h: [B, n, d], other: [B, 1, n, n], true
// for keys of another segment or after the query.
at::Tensor SelfAttention(const AttentionWeights& w, const at::Tensor& h, const at::Tensor& other) {
  const at::Tensor x = w.norm(h);
  const at::Tensor query = SplitHeads(w.query(x), w.heads);  // [B, H, n, c]
  const at::Tensor key = SplitHeads(w.key(x), w.heads);
  const at::Tensor value = SplitHeads(w.value(x), w.heads);
  std::vector<at::Tensor> blocks;
  for (int64_t begin = 0; begin < h.size(1); begin += kQueryBlock) {
    const int64_t rows = std::min(kQueryBlock, h.size(1) - begin);
    const int64_t seen = begin + rows;
    blocks.push_back(RelativeAttention(w, {.query = query.narrow(2, begin, rows),
                                           .key = key.narrow(2, 0, seen),
                                           .value = value.narrow(2, 0, seen),
                                           .first_query = begin,
                                           .absent = other.narrow(2, begin, rows).narrow(3, 0, seen)}));
  }
  return w.output(JoinHeads(at::cat(blocks, 2)));
}

// CCA without its residual: exactly 0 in rows that attend to nothing. h: [B, n, d], encoded: [C * k, r, d'].
at::Tensor CrossAttention(const AttentionWeights& w, const ModelConfig& config, const Batch& batch, const at::Tensor& h,
                          const at::Tensor& encoded) {
  const int64_t m = config.chunk_length;
  const int64_t chunks = batch.neighbour_absent.size(0);
  const at::Tensor query = w.query(w.norm(h.flatten(0, 1)));  // [B * n, H * c]
  const auto by_chunk = [&](const at::Tensor& rows) { return SplitHeads(rows.unflatten(0, {chunks, -1}), w.heads); };
  const auto keys = [&](const Linear& linear) { return by_chunk(linear(encoded).flatten(0, 1)); };  // [C, H, k * r, c]
  AttentionInput input{.query = by_chunk(SelectRows(query, batch.attending_rows)),
                       .key = keys(w.key),
                       .value = keys(w.value),
                       .first_query = m - 1,  // eq. 6
                       .stretches = batch.neighbours.size(0) / chunks,
                       .absent = batch.neighbour_absent.unsqueeze(1).unsqueeze(1)};
  const at::Tensor added = w.output(JoinHeads(RelativeAttention(w, input)).flatten(0, 1));  // [C * m, d]
  return at::zeros({query.size(0) + 1, h.size(2)}, h.options())
      .index_add(0, batch.attending_rows, (config.gate == 1.0 ? added : added * config.gate).to(h.scalar_type()))
      .narrow(0, 0, query.size(0))
      .view(h.sizes());
}

EncoderInput EncoderInputOf(const ModelConfig& config, const Batch& batch, const at::Tensor& h) {
  return {.neighbours = batch.neighbours,
          .chunk_of = batch.chunk_of,
          .conditioning = SelectRows(h.flatten(0, 1), batch.chunk_rows).unflatten(0, {-1, config.chunk_length}),
          .conditioning_absent = batch.chunk_rows_absent};
}

// [B, 1, n, n]
at::Tensor OtherSegments(const at::Tensor& segments) {
  const int64_t n = segments.size(1);
  const at::Tensor later = at::ones({n, n}, segments.options().dtype(at::kBool)).triu(1);
  return segments.unsqueeze(1).ne(segments.unsqueeze(2)).logical_or(later).unsqueeze(1);
}

}  // namespace

absl::Status CheckTrainable(const ModelConfig& config) {
  const auto refuse = [](const char* field) {
    return absl::InvalidArgumentError(StrCat("models with ", std::string_view(field), " are served but not trained"));
  };
  if (config.positions != Positions::kTransformerXl) return refuse("positions other than transformer_xl");
  if (config.learned_positions != LearnedPositions::kNone) return refuse("learned_positions");
  if (config.embedding_width != 0 && config.embedding_width != config.width) return refuse("an embedding_width");
  if (config.query_key_value_biases || config.output_biases || config.readout_bias) return refuse("biases");
  if (config.encoder_projection) return refuse("encoder_projection");
  if (config.conditioning_cca_norm) return refuse("conditioning_cca_norm");
  if (config.null_key) return refuse("null_key");
  if (config.post_norm) return refuse("post_norm");
  if (config.additive_pad_mask) return refuse("additive_pad_mask");
  if (config.partial_chunk_first || config.offset != 0) return refuse("partial_chunk_first or an offset");
  return absl::OkStatus();
}

at::Tensor BatchForward(const ModelWeights& weights, const ModelConfig& config, const Batch& batch,
                        const ForwardOptions& options) {
  const at::Tensor other = OtherSegments(batch.segments);
  at::Tensor encoded;                              // E [C * k, r, d']
  at::Tensor h = weights.embedding(batch.tokens);  // [B, n, d]
  // A part of a layer, held or computed again.
  const auto run = [&](const auto& part, const auto& part_weights, std::vector<at::Tensor> inputs) {
    return options.recompute ? Recompute(part, part_weights, std::move(inputs)) : part(part_weights, inputs);
  };
  for (const LayerWeights& layer : weights.layers) {
    const auto attention = [other](const AttentionWeights& w, const std::vector<at::Tensor>& in) {
      return in[0] + SelfAttention(w, in[0], other);
    };
    const auto cca = [&config, &batch](const AttentionWeights& w, const std::vector<at::Tensor>& in) {
      return in[0] + CrossAttention(w, config, batch, in[0], in[1]);
    };
    const auto encoder = [&config, &batch](const EncoderWeights& w, const std::vector<at::Tensor>& in) {
      return EncodeNeighbours(w, config, EncoderInputOf(config, batch, in[0]));
    };
    const auto ffw = [](const FfwWeights& w, const std::vector<at::Tensor>& in) { return in[0] + Ffw(w, in[0]); };
    h = run(attention, layer.attention, {h});
    if (options.streams != nullptr) options.streams->push_back(h);
    if (layer.cca && batch.neighbours.defined()) {
      if (!encoded.defined()) encoded = run(encoder, weights.encoder, {h});
      h = run(cca, *layer.cca, {h, encoded});
    }
    h = run(ffw, layer.ffw, {h});
  }
  if (options.streams != nullptr) options.streams->push_back(h);
  const at::Tensor rows = h.flatten(0, 1);
  return weights.readout(config.final_norm ? weights.final_norm(rows) : rows);
}

at::Tensor SummedLoss(const at::Tensor& logits, const Batch& batch) {
  const at::Tensor exact = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  return at::cross_entropy_loss(exact, batch.labels.flatten(), {}, at::Reduction::Sum, kIgnoredLabel);
}

}  // namespace retro
