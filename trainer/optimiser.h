// AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with decoupled weight decay on matrices alone, gradients clipped
// by their global norm, linear warm-up and a cosine after it. Nothing here waits for the device.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "generator_service/model/config.h"
#include "generator_service/model/weights.h"

namespace retro {

struct OptimiserOptions {
  double learning_rate = 1e-3;  // at the end of the warm-up
  double final_share = 0.1;     // of it, at the last step
  int64_t warmup_steps = 100;
  int64_t steps = 1000;
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip_norm = 1.0;
};

// The learning rate of a step, counted from 0.
double LearningRate(const OptimiserOptions& options, int64_t step);

class Optimiser {
 public:
  // fp32 leaves by the weight table's names. Those that require no gradient stay as they are.
  Optimiser(const ModelConfig& config, const WeightMap& weights, const OptimiserOptions& options);

  // One step with the gradients that the weights hold, which are then forgotten. Returns the gradients' norm before
  // clipping: [] fp32, on the device. Where it is not finite the weights stay as they are.
  at::Tensor Step(int64_t step);

  // First and second moments, and the number of steps taken ([] fp32), for checkpoints; changed in place by Step.
  const WeightMap& means() const { return means_; }
  const WeightMap& variances() const { return variances_; }
  const at::Tensor& steps_taken() const { return steps_taken_; }

 private:
  struct Group {
    std::vector<at::Tensor> weights, means, variances;
    double weight_decay;
  };

  const OptimiserOptions options_;
  WeightMap means_, variances_;
  at::Tensor steps_taken_;
  Group groups_[2];  // without and with decay
};

}  // namespace retro
