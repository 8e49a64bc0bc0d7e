// What lies between the matrix products of a BERT encoder: small loops over rows, fp32, on the caller's thread.
// Arrays are row-major and need no alignment; sizes need not be multiples of anything.
#pragma once

#include <span>

#include "retriever_service/embed/bert_config.h"
#include "retriever_service/embed/bert_weights.h"

namespace retro {

// x[r] = norm(x[r] + sum of parts[.][r] + bias), the layer norm of Ba et al. 2016, for `rows` rows of bias.size()
// values. The parts are the shares of one matrix product that different workers have computed.
void AddAndNormalise(int rows, float* x, std::span<const float* const> parts, std::span<const float> bias,
                     const NormWeights& norm, float epsilon);

// x[r] = activation(x[r] + bias) for `rows` rows of bias.size() values.
void AddBiasAndActivate(int rows, float* x, std::span<const float> bias, BertActivation activation);

// One vector from the `rows` > 0 rows of a text, into out[width].
void Pool(int rows, int width, const float* x, BertPooling pooling, float* out);

// Scales to unit length; a zero vector stays.
void NormaliseVector(std::span<float> vector);

}  // namespace retro
