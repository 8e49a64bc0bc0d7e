// Everything that tells one RETRO model from another: sizes, and each choice that the paper leaves open.
// Source: Borgeaud et al. 2021 (arXiv 2112.04426), tables 2 and 10, sections 2.4, 2.5 and B.1.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace retro {

enum class Activation { kGeluTanh, kGeluErf, kRelu, kSilu };

enum class NormKind {
  kRms,            // g x / sqrt(mean(x^2) + eps)
  kRmsEpsOutside,  // g x / (sqrt(mean(x^2)) + eps)
  kRmsFloor,       // g x / max(sqrt(mean(x^2)), eps)
  kRmsFloorGated,  // that, times sigmoid(w x)
  kLayer,          // g (x - mean) / sqrt(variance + eps) + b
};

// What an attention knows of where its queries and keys stand.
enum class Positions {
  kTransformerXl,  // relative, W_R sinusoid(dist); see attention.h
  kBuckets,        // relative, one learned bias a clamped distance and head
  kRotary,         // queries and keys of every attention rotated
  kRotaryDecoder,  // those of the decoder's self-attention only
  kNone,
};

// Whose embeddings a learned row for each position is added to.
enum class LearnedPositions { kNone, kDecoder, kBoth };

// As in the JSON form: "gelu_tanh", "rms_eps_outside", "transformer_xl", ...
std::string_view ActivationName(Activation activation);
std::string_view NormKindName(NormKind kind);
std::string_view PositionsName(Positions positions);
std::string_view LearnedPositionsName(LearnedPositions positions);

// Layers are numbered from 1, as in the paper. Members stand in the order of the JSON form, under the same names.
struct ModelConfig {
  // Decoder.
  int64_t width = 0;  // d
  int64_t ffw_width = 0;
  int64_t heads = 0;
  int64_t head_size = 0;            // heads * head_size need not be the width
  int64_t layers = 0;               // L
  std::vector<int64_t> cca_layers;  // P, rising; empty: a plain language model without encoder

  // Encoder of the neighbours; unused where cca_layers is empty.
  int64_t encoder_width = 0;  // d'
  int64_t encoder_ffw_width = 0;
  int64_t encoder_heads = 0;
  int64_t encoder_head_size = 0;
  int64_t encoder_layers = 0;
  std::vector<int64_t> encoder_cca_layers;  // P_enc: where the neighbours attend to the chunk that they were found for

  int64_t vocabulary = 0;          // V
  int64_t chunk_length = 64;       // m
  int64_t neighbour_length = 128;  // r >= m: neighbour and continuation
  int64_t max_length = 2048;       // n: the longest sequence

  // Choices. The defaults are the paper's form.
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-6;
  bool final_norm = true;       // before READ
  bool post_norm = false;       // x = norm(scale x + f(x)) in place of x + f(norm(x)) (Wang et al. 2022, DeepNet)
  double residual_scale = 1.0;  // `scale` of a post-norm decoder
  double encoder_residual_scale = 1.0;  // of its encoder
  Activation activation = Activation::kGeluTanh;
  bool gated_ffw = false;                    // W2 (activation(W_gate x) * W1 x)
  bool attention_scale = true;               // content logits are divided by sqrt(head size)
  bool query_key_value_biases = false;       // of those three matrices
  bool output_biases = false;                // of every other matrix but READ
  bool readout_bias = false;                 // of READ
  bool tied_readout = true;                  // READ is the transpose of EMB
  bool shared_embedding = false;             // the encoder embeds with EMB; needs encoder_width == EmbeddingWidth
  int64_t embedding_width = 0;               // of EMB; 0: the width. Another one is projected to the width.
  bool encoder_final_norm = false;           // norm on the encoder's output
  bool encoder_projection = false;           // matrix from the encoder's output to the width of the decoder
  bool conditioning_norm = false;            // norm of its own on the activations that condition the encoder
  bool conditioning_cca_norm = false;        // they are those that the first CCA has normed for its queries
  bool encoder_cca_residual_normed = false;  // encoder: x = norm(x) + CA(norm(x)) in place of x + CA(norm(x))
  bool null_key = false;                     // CCA has one learned key more, which no mask hides
  double gate = 1.0;                         // scales what CCA adds, unless a sequence says otherwise

  Positions positions = Positions::kTransformerXl;
  bool position_biases = true;  // the vectors u and v of Transformer-XL
  int64_t attention_buckets = 0;
  int64_t cca_buckets = 0;
  int64_t encoder_attention_buckets = 0;
  int64_t encoder_cca_buckets = 0;
  int64_t rotary_size = 0;  // the first dimensions of each head are rotated, half-split
  double rotary_base = 10000;
  LearnedPositions learned_positions = LearnedPositions::kNone;

  bool mask_pad = false;  // pad tokens of neighbours are no keys
  bool additive_pad_mask =
      false;  // with mask_pad: pad keys only lose 10000 in their logits, the decoder's own ones too
  int64_t pad_id = 0;

  // Where chunks begin unless a sequence says otherwise: see DefaultOffset.
  int64_t offset = 0;                // tokens of the first chunk, 0 ... m-1; 0: a full one
  bool partial_chunk_first = false;  // the chunk that is not full is the first one. The encoder sees it with zero rows
                                     // at its end, which it attends to.

  bool operator==(const ModelConfig&) const = default;
};

int64_t EmbeddingWidth(const ModelConfig& config);
// Width of E, as CCA takes it.
int64_t EncodedWidth(const ModelConfig& config);
// Tokens of the first chunk of a text of `length` tokens as the model was trained: 0 ... m-1, 0: a full chunk.
int64_t DefaultOffset(const ModelConfig& config, int64_t length);

// OK, or INVALID_ARGUMENT naming the field, its value and what it must be.
absl::Status ValidateModelConfig(const ModelConfig& config);

// JSON object with the members' names. Reading refuses unknown keys, wrong types and invalid values (INVALID_ARGUMENT);
// sizes must be given, choices default to the paper's form.
std::string ModelConfigToJson(const ModelConfig& config);
absl::StatusOr<ModelConfig> ModelConfigFromJson(std::string_view json);

// retro-172m, retro-425m, retro-1.5b, retro-7.5b: the paper's models. retro-demo: one that is trained and run on a CPU.
std::vector<std::string> PresetNames();
// NOT_FOUND listing the names.
absl::StatusOr<ModelConfig> PresetModelConfig(std::string_view name);

}  // namespace retro
