// Rows of a matrix by token id. Where READ is tied to it, both share one matrix, packed or not.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "generator_service/model/linear.h"

namespace retro {

class Embedding {
 public:
  Embedding() = default;
  // weight: [V, width]. Differentiable.
  explicit Embedding(at::Tensor weight) : weight_(std::move(weight)) {}
  explicit Embedding(std::shared_ptr<const PackedMatrix> packed) : packed_(std::move(packed)) {}

  // [...] ids -> [..., width]; fp32, but of the weight's dtype if that is fp64.
  at::Tensor operator()(const at::Tensor& tokens) const;

  // READ, [..., width] -> [..., V]: the same matrix.
  Linear Tied(at::Tensor bias) const;

 private:
  at::Tensor weight_;
  std::shared_ptr<const PackedMatrix> packed_;
};

}  // namespace retro
