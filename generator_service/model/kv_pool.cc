#include "generator_service/model/kv_pool.h"

#include <array>

#include "generator_service/model/huge_tensor.h"

namespace retro {
namespace {

at::Tensor TakeMemory(const ModelConfig& config, int64_t blocks, const at::TensorOptions& options) {
  const std::array<int64_t, 6> shape = {config.layers, 2, blocks, config.heads, config.chunk_length, config.head_size};
  return options.device().is_cpu() ? EmptyInHugePages(shape, c10::typeMetaToScalarType(options.dtype()))
                                   : at::empty(shape, options);
}

}  // namespace

KvPool::KvPool(const ModelConfig& config, int64_t blocks, const at::TensorOptions& options)
    : memory_(TakeMemory(config, blocks, options)) {
  // Low numbers first: memory that is never needed is never touched.
  for (int64_t block = blocks - 1; block >= 0; --block) free_.push_back(block);
}

int64_t KvPool::BlockBytes(const ModelConfig& config, int64_t element_bytes) {
  return config.layers * 2 * config.heads * config.chunk_length * config.head_size * element_bytes;
}

std::optional<int64_t> KvPool::Take() {
  if (free_.empty()) return std::nullopt;
  const int64_t block = free_.back();
  free_.pop_back();
  return block;
}

}  // namespace retro
