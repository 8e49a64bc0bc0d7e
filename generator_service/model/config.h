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

enum class Activation { kGeluTanh, kGeluErf, kRelu };

std::string_view ActivationName(Activation activation);  // "gelu_tanh", "gelu_erf", "relu"

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
  double norm_eps = 1e-6;  // inside the root of RMSNorm
  Activation activation = Activation::kGeluTanh;
  bool position_biases = true;      // the vectors u and v of Transformer-XL
  bool tied_readout = true;         // READ is the transpose of EMB
  bool shared_embedding = false;    // the encoder embeds with EMB; needs encoder_width == width
  bool encoder_final_norm = false;  // RMSNorm on the encoder's output
  bool conditioning_norm = false;   // RMSNorm on the activations that condition the encoder
  bool mask_pad = false;            // pad tokens of neighbours are no keys
  int64_t pad_id = 0;

  bool operator==(const ModelConfig&) const = default;
};

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
