#include "generator_service/model/kv_cache.h"

#include <algorithm>

#include "common/base/simd.h"

namespace retro {
namespace {

// [blocks, heads, m, head] -> the first `tokens` rows of the blocks in order: [heads, tokens, head].
at::Tensor Gather(const at::Tensor& pages, const at::Tensor& blocks, int64_t tokens, at::ScalarType type) {
  return pages.index_select(0, blocks).to(type).transpose(0, 1).flatten(1, 2).narrow(1, 0, tokens);
}

void Convert(const float* from, int64_t count, float* to) { std::copy_n(from, count, to); }

void Convert(const float* from, int64_t count, uint16_t* to) {
  int64_t i = 0;
  for (; i + simd::kLanes <= count; i += simd::kLanes) simd::StoreHalves(to + i, simd::Load(from + i));
  float last[simd::kLanes] = {};
  uint16_t halves[simd::kLanes];
  std::copy_n(from + i, count - i, last);
  simd::StoreHalves(halves, simd::Load(last));
  std::copy_n(halves, count - i, to + i);
}

// rows: [heads, length, head]; block: [heads, m, head], from `place` on.
template <typename Element>
void WriteRows(const at::Tensor& rows, const at::Tensor& block, int64_t place) {
  auto* const to = static_cast<Element*>(block.mutable_data_ptr()) + place * block.stride(1);
  const float* const from = rows.const_data_ptr<float>();
  for (int64_t h = 0; h < rows.size(0); ++h) {
    for (int64_t t = 0; t < rows.size(1); ++t) {
      Convert(from + h * rows.stride(0) + t * rows.stride(1), rows.size(2),
              to + h * block.stride(0) + t * block.stride(1));
    }
  }
}

// The library takes longer to begin with one token's rows than to write them.
void WriteToBlock(const at::Tensor& rows, const at::Tensor& block, int64_t place) {
  const at::ScalarType type = block.scalar_type();
  if (!rows.is_cpu() || rows.scalar_type() != at::kFloat || rows.stride(2) != 1 || type == at::kBFloat16) {
    block.narrow(1, place, rows.size(1)).copy_(rows);
  } else if (type == at::kHalf) {
    WriteRows<uint16_t>(rows, block, place);
  } else {
    WriteRows<float>(rows, block, place);
  }
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
    WriteToBlock(rows.keys.narrow(1, done, length), keys[block], place);
    WriteToBlock(rows.values.narrow(1, done, length), values[block], place);
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
