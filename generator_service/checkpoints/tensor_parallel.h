// The folder of a tensor-parallel Megatron-LM training, merged: latest_checkpointed_iteration.txt names the newest
// iteration ("release" or a number), whose folder has a file mp_rank_TT/model_optim_rng.pt of every rank.
// Column-parallel matrices are cut by rows, row-parallel ones by columns, a gated FFW's first one in each half; norms
// are on all ranks.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "generator_service/checkpoints/tensor_source.h"

namespace retro {

// INVALID_ARGUMENT naming the file and the tensor for ranks that do not go together, or a tensor that no rule merges.
// `gated` as the config has it, unless the files say so themselves.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensorParallel(const std::string& directory, bool gated);

}  // namespace retro
