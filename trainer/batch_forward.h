// The model over a batch of windows of equal length, without caches: the layers of generator_service/model, on rows
// [B, n], with the neighbours of all chunks encoded at once. Source: Borgeaud et al. 2021, Algorithm 1.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/status/status.h"
#include "generator_service/model/config.h"
#include "generator_service/model/weights.h"
#include "trainer/batch.h"

namespace retro {

// INVALID_ARGUMENT naming the choice of the config that only imported models make, and that this forward has no code
// for.
absl::Status CheckTrainable(const ModelConfig& config);

struct ForwardOptions {
  // Activations of a layer are computed again on the way back instead of held (Chen et al. 2016).
  bool recompute = false;
  // If not null: H [B, n, d] after each layer's ATTN, which is what its CCA would read, and the one that READ reads,
  // before the final norm.
  std::vector<at::Tensor>* streams = nullptr;
};

// Logits [B * n, V] of the dtype of READ; the residual stream is fp32 where the matrices are bf16. Differentiable with
// respect to the weights.
at::Tensor BatchForward(const ModelWeights& weights, const ModelConfig& config, const Batch& batch,
                        const ForwardOptions& options = {});

// Sum over the labels of -log p, fp32 (fp64 for fp64 weights): [].
at::Tensor SummedLoss(const at::Tensor& logits, const Batch& batch);

}  // namespace retro
