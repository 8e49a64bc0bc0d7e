// New weights with which retrieval copies before anything is trained: an induction head (Olsson et al. 2022) through
// CCA, set by hand as in mimetic initialisation (Trockman and Kolter 2023), since from random weights gradient descent
// finds its two steps, each useless without the other, only after a very long plateau.
//
//   encoder, layer 1   each head attends to the token before, by Transformer-XL's positions, and marks the neighbour's
//                      token with it: its largest principal components, whitened, in the place of the smallest ones
//   CCA                a token asks for the mark that is itself, as far as it can be read from the decoder's
//                      activations, and takes over the components of the token that carries it: the one after its like
//
// All else in the encoder adds nothing at first. The components are those of the decoder's embedding over tokens as
// frequent as in the text; what a decoder's activations say of their own token is found by ridge regression.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "generator_service/model/config.h"
#include "trainer/data_set.h"

namespace at {
class Tensor;
}

namespace retro {

struct CopyingStartOptions {
  int64_t length = 512;  // tokens of the windows that the activations are of
  uint64_t seed = 1;     // of the choice of the windows
};

// INVALID_ARGUMENT naming what the config must have: a trainable form, position_biases, a tied READ, a gate other than
// 0, an encoder that keeps its stream (no encoder_cca_residual_normed).
absl::Status CheckCanCopy(const ModelConfig& config);

// `weights`: a model's whose decoder is trained and whose CCA and encoder are random (RandomWeights); these are
// replaced. INVALID_ARGUMENT also if the text holds less than a window, or nothing that tells its tokens apart.
absl::Status PlantCopying(const ModelConfig& config, const DataSet& text, const CopyingStartOptions& options,
                          std::map<std::string, at::Tensor>& weights);

}  // namespace retro
