// The keys and values of one sequence's self-attentions, in blocks of a shared pool.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generator_service/model/kv_pool.h"

namespace retro {

struct KeysAndValues {
  at::Tensor keys;    // [heads, S, head]
  at::Tensor values;  // [heads, S, head]
};

// Places are counted from the oldest token that is still held.
class KvCache {
 public:
  explicit KvCache(std::shared_ptr<KvPool> pool) : pool_(std::move(pool)) {}
  ~KvCache() { Trim(0); }
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Takes what blocks are missing for `tokens` tokens. False, and nothing changes, if the pool has too few.
  bool Reserve(int64_t tokens);
  // Gives back the blocks that `tokens` tokens do not need.
  void Trim(int64_t tokens);
  // Gives back the block of the oldest m tokens: every place becomes m less.
  void DropOldestBlock();

  // The rows [heads, T, head] become those of the places first ... first + T - 1, which must be reserved.
  void Write(int64_t layer, int64_t first, const KeysAndValues& rows);
  // A copy of the first `tokens` places' rows.
  KeysAndValues Read(int64_t layer, int64_t tokens, at::ScalarType type) const;

  const KvPool& pool() const { return *pool_; }
  std::span<const int64_t> blocks() const { return blocks_; }

 private:
  std::shared_ptr<KvPool> pool_;
  std::vector<int64_t> blocks_;  // by place / m
};

}  // namespace retro
