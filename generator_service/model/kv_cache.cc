#include "generator_service/model/kv_cache.h"

#include <algorithm>

namespace retro {
namespace {

at::Tensor Grown(const at::Tensor& old, int64_t rows_kept, int64_t capacity, const at::Tensor& like) {
  at::Tensor grown = at::empty({like.size(0), capacity, like.size(2)}, like.options());
  if (rows_kept > 0) grown.narrow(1, 0, rows_kept).copy_(old.narrow(1, 0, rows_kept));
  return grown;
}

void MoveToFront(at::Tensor& all, int64_t rows, int64_t kept) {
  all.narrow(1, 0, kept).copy_(all.narrow(1, rows, kept).clone());  // they may overlap
}

}  // namespace

void KvCache::DropFront(int64_t rows, int64_t kept) {
  MoveToFront(keys_, rows, kept);
  MoveToFront(values_, rows, kept);
}

void KvCache::Write(int64_t first, const at::Tensor& keys, const at::Tensor& values, int64_t block, int64_t reserve) {
  const int64_t rows = keys.size(1);
  const int64_t capacity = keys_.defined() ? keys_.size(1) : 0;
  if (first + rows > capacity) {
    // By half as much again, so that a long generation copies each row a few times only.
    const int64_t wanted = std::max({first + rows, reserve, capacity + capacity / 2});
    const int64_t grown = (wanted + block - 1) / block * block;
    keys_ = Grown(keys_, first, grown, keys);
    values_ = Grown(values_, first, grown, values);
  }
  keys_.narrow(1, first, rows).copy_(keys);
  values_.narrow(1, first, rows).copy_(values);
}

}  // namespace retro
