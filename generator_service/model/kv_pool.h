// The memory of all sequences' self-attention keys and values: blocks of m tokens, taken at start and shared out from
// then on. A block holds its m tokens' keys and values of every layer, by head: [m, head].
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "generator_service/model/config.h"

namespace retro {

// One thread at a time.
class KvPool {
 public:
  // Throws c10::Error or std::bad_alloc if the device has no room for it.
  KvPool(const ModelConfig& config, int64_t blocks, const at::TensorOptions& options);

  // Bytes of one block whose numbers take `element_bytes` each.
  static int64_t BlockBytes(const ModelConfig& config, int64_t element_bytes);

  // A block's number; nothing if all are taken. Its old content is void.
  std::optional<int64_t> Take();
  void GiveBack(int64_t block) { free_.push_back(block); }

  // Makes all of it zeros, so that what is read past the end of a sequence is a number. Nothing may be taken.
  void Clear() { memory_.zero_(); }

  int64_t blocks() const { return memory_.size(2); }
  int64_t blocks_taken() const { return blocks() - static_cast<int64_t>(free_.size()); }
  int64_t block_tokens() const { return memory_.size(4); }

  // [blocks, heads, m, head]
  at::Tensor keys(int64_t layer) const { return memory_[layer][0]; }
  at::Tensor values(int64_t layer) const { return memory_[layer][1]; }

 private:
  at::Tensor memory_;          // [layers, 2, blocks, heads, m, head]
  std::vector<int64_t> free_;  // the next one to be taken is the last
};

}  // namespace retro
