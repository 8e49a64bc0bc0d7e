#include "generator_service/model/kv_cache.h"

#include <algorithm>

namespace retro {
namespace {

// [blocks, heads, m, head] -> the first `tokens` rows of the blocks in order: [heads, tokens, head].
at::Tensor Gather(const at::Tensor& pages, const at::Tensor& blocks, int64_t tokens, at::ScalarType type) {
  return pages.index_select(0, blocks).to(type).transpose(0, 1).flatten(1, 2).narrow(1, 0, tokens);
}

}  // namespace

bool KvCache::Reserve(int64_t tokens) {
  const int64_t m = pool_->block_tokens();
  const size_t before = blocks_.size();
  while (static_cast<int64_t>(blocks_.size()) * m < tokens) {
    const std::optional<int64_t> block = pool_->Take();
    if (!block) {
      Trim(static_cast<int64_t>(before) * m);
      return false;
    }
    blocks_.push_back(*block);
  }
  return true;
}

void KvCache::Trim(int64_t tokens) {
  const int64_t m = pool_->block_tokens();
  const auto needed = static_cast<size_t>((tokens + m - 1) / m);
  while (blocks_.size() > needed) {
    pool_->GiveBack(blocks_.back());
    blocks_.pop_back();
  }
}

void KvCache::DropOldestBlock() {
  pool_->GiveBack(blocks_.front());
  blocks_.erase(blocks_.begin());
}

void KvCache::Write(int64_t layer, int64_t first, const KeysAndValues& rows) {
  const int64_t m = pool_->block_tokens();
  const at::Tensor keys = pool_->keys(layer);
  const at::Tensor values = pool_->values(layer);
  const int64_t count = rows.keys.size(1);
  for (int64_t done = 0; done < count;) {
    const int64_t block = blocks_[(first + done) / m];
    const int64_t place = (first + done) % m;
    const int64_t length = std::min(m - place, count - done);
    keys[block].narrow(1, place, length).copy_(rows.keys.narrow(1, done, length));
    values[block].narrow(1, place, length).copy_(rows.values.narrow(1, done, length));
    done += length;
  }
}

KeysAndValues KvCache::Read(int64_t layer, int64_t tokens, at::ScalarType type) const {
  const int64_t m = pool_->block_tokens();
  const at::Tensor pages = pool_->keys(layer);
  const at::Tensor blocks =
      at::tensor(at::ArrayRef<int64_t>(blocks_.data(), (tokens + m - 1) / m), at::kLong).to(pages.device());
  return {Gather(pages, blocks, tokens, type), Gather(pool_->values(layer), blocks, tokens, type)};
}

}  // namespace retro
