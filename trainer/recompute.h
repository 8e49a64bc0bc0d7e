// Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): a part of the model whose inner activations are not
// held for the way back but computed again there.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

#include "generator_service/model/weights.h"

namespace retro {

// Calls visit(tensor) for every tensor of the weights of a trainable model, defined or not, always in the same order;
// it may replace them.
template <typename Visit>
void VisitTensors(Linear& linear, const Visit& visit) {
  at::Tensor weight = linear.weight();
  visit(weight);
  linear = Linear(std::move(weight));
}

template <typename Visit>
void VisitTensors(Embedding& embedding, const Visit& visit) {
  at::Tensor weight = embedding.weight();
  visit(weight);
  embedding = Embedding(std::move(weight));
}

template <typename Visit>
void VisitTensors(Norm& norm, const Visit& visit) {
  visit(norm.gain);
  visit(norm.bias);
}

template <typename Visit>
void VisitTensors(AttentionWeights& w, const Visit& visit) {
  for (Linear* linear : {&w.query, &w.key, &w.value, &w.output}) VisitTensors(*linear, visit);
  VisitTensors(w.norm, visit);
  for (at::Tensor* tensor : {&w.content_bias, &w.position_bias, &w.positions}) visit(*tensor);
}

template <typename Visit>
void VisitTensors(FfwWeights& w, const Visit& visit) {
  for (Linear* linear : {&w.up, &w.down}) VisitTensors(*linear, visit);
  if (w.gate) VisitTensors(*w.gate, visit);
  VisitTensors(w.norm, visit);
}

template <typename Visit>
void VisitTensors(EncoderWeights& w, const Visit& visit) {
  VisitTensors(w.embedding, visit);
  for (Norm* norm : {&w.conditioning_norm, &w.final_norm}) VisitTensors(*norm, visit);
  for (LayerWeights& layer : w.layers) {
    VisitTensors(layer.attention, visit);
    if (layer.cca) VisitTensors(*layer.cca, visit);
    VisitTensors(layer.ffw, visit);
  }
}

using TensorFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// function(inputs), of which only the inputs are held. `function` must depend on them alone as far as gradients go.
at::Tensor RecomputeTensors(const TensorFunction& function, const std::vector<at::Tensor>& inputs);

// part(weights, inputs), differentiable with respect to both.
template <typename Part, typename Weights>
at::Tensor Recompute(const Part& part, const Weights& weights, std::vector<at::Tensor> inputs) {
  const size_t count = inputs.size();
  Weights copy = weights;
  VisitTensors(copy, [&](at::Tensor& tensor) {
    if (tensor.defined()) inputs.push_back(tensor);
  });
  return RecomputeTensors(
      [part, copy, count](const std::vector<at::Tensor>& given) {
        Weights own = copy;
        size_t next = count;
        VisitTensors(own, [&](at::Tensor& tensor) {
          if (tensor.defined()) tensor = given[next++];
        });
        return part(own, std::vector<at::Tensor>(given.begin(), given.begin() + static_cast<int64_t>(count)));
      },
      inputs);
}

}  // namespace retro
