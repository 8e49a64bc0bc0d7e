#include "trainer/evaluation/token_memory.h"

#include <algorithm>
#include <limits>

#include "trainer/window_sampler.h"

namespace retro {
namespace {

constexpr int64_t kRowsAtOnce = 16384;  // entries whose lists are looked for at a time
constexpr int64_t kEntriesAList = 64;   // at least, on average
constexpr float kLowest = -std::numeric_limits<float>::infinity();

at::Tensor ToUnitLength(const at::Tensor& rows) { return rows / rows.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12); }

// scores, tokens: [T, N].
at::Tensor MassOf(const at::Tensor& scores, const at::Tensor& tokens, const MemoryQuery& query) {
  const at::Tensor match = tokens.eq(query.targets.unsqueeze(1));
  const at::Tensor exact = scores.to(at::kDouble);
  std::vector<at::Tensor> masses;
  masses.reserve(query.sharpness.size());
  for (const double factor : query.sharpness) masses.push_back((at::softmax(exact * factor, 1) * match).sum(1));
  return at::stack(masses);
}

// Where each of the numbers [0, count) begins among sorted ones, and their total.
std::vector<int64_t> FirstOf(const at::Tensor& numbers, int64_t count) {
  const at::Tensor counts = at::bincount(numbers, {}, count).to(at::kCPU);
  std::vector<int64_t> first = {0};
  first.reserve(count + 1);
  for (int64_t i = 0; i < count; ++i) first.push_back(first.back() + counts.const_data_ptr<int64_t>()[i]);
  return first;
}

}  // namespace

void KnnStore::Append(const at::Tensor& keys, const at::Tensor& tokens, int64_t document) {
  pieces_[0].push_back(ToUnitLength(keys));
  pieces_[1].push_back(tokens);
  pieces_[2].push_back(at::full_like(tokens, document));
  size_ += tokens.size(0);
}

void KnnStore::Build(const Options& options) {
  options_ = options;
  options_.lists = std::clamp<int64_t>(size_ / kEntriesAList, 1, options.lists);
  options_.probed = std::min(options_.probed, options_.lists);
  if (size_ == 0) return;
  const at::Tensor keys = at::cat(pieces_[0]);
  pieces_[0].clear();
  std::vector<int64_t> drawn;
  drawn.reserve(options_.lists);
  for (int64_t i = 0; i < options_.lists; ++i) {
    drawn.push_back(
        static_cast<int64_t>(MixedBits(options_.seed, static_cast<uint64_t>(i)) % static_cast<uint64_t>(size_)));
  }
  centroids_ = keys.index_select(0, at::tensor(drawn, at::kLong).to(keys.device()));
  std::vector<at::Tensor> lists;
  for (const at::Tensor& rows : keys.split(kRowsAtOnce)) lists.push_back(at::matmul(rows, centroids_.t()).argmax(1));
  const at::Tensor list = at::cat(lists);
  const at::Tensor order = list.argsort(/*stable=*/true);
  first_ = FirstOf(list, options_.lists);
  keys_ = keys.index_select(0, order);
  tokens_ = at::cat(pieces_[1]).index_select(0, order);
  documents_ = at::cat(pieces_[2]).index_select(0, order);
  pieces_[1].clear();
  pieces_[2].clear();
}

KnnStore::Found KnnStore::Nearest(const at::Tensor& hidden, std::span<const int64_t> left_out) const {
  const int64_t rows = hidden.size(0);
  const int64_t probed = options_.probed;
  const at::Tensor wanted = std::get<1>(at::matmul(hidden, centroids_.t()).topk(probed, 1)).flatten();  // [T probed]
  const at::Tensor order = wanted.argsort();  // places of `wanted`, list after list
  const std::vector<int64_t> first = FirstOf(wanted, options_.lists);
  at::Tensor scores = at::full({rows * probed, options_.nearest}, kLowest, hidden.options());
  at::Tensor entries = at::zeros({rows * probed, options_.nearest}, wanted.options());
  for (int64_t list = 0; list < options_.lists; ++list) {
    const int64_t count = first_[list + 1] - first_[list];
    if (first[list] == first[list + 1] || count == 0) continue;
    const at::Tensor places = order.narrow(0, first[list], first[list + 1] - first[list]);
    const at::Tensor queries = hidden.index_select(0, places.floor_divide(probed));
    at::Tensor products = at::matmul(queries, keys_.narrow(0, first_[list], count).t());
    const at::Tensor documents = documents_.narrow(0, first_[list], count);
    for (const int64_t document : left_out) products.masked_fill_(documents.eq(document).unsqueeze(0), kLowest);
    const int64_t kept = std::min(options_.nearest, count);
    const auto [top, found] = products.topk(kept, 1);
    scores.narrow(1, 0, kept).index_copy_(0, places, top);
    entries.narrow(1, 0, kept).index_copy_(0, places, found + first_[list]);
  }
  const auto [top, found] = scores.view({rows, -1}).topk(options_.nearest, 1);
  return {top, entries.view({rows, -1}).gather(1, found)};
}

at::Tensor KnnStore::TargetMass(const MemoryQuery& query, std::span<const int64_t> left_out) const {
  if (size_ == 0) {
    const auto nothing = std::numeric_limits<double>::quiet_NaN();
    return at::full({std::ssize(query.sharpness), query.targets.size(0)}, nothing,
                    query.hidden.options().dtype(at::kDouble));
  }
  const Found found = Nearest(ToUnitLength(query.hidden), left_out);
  return MassOf(found.scores, tokens_.index({found.entries}), query);
}

at::Tensor ContinuousCache::TargetMassThenAppend(const MemoryQuery& query) {
  const at::Tensor unit = ToUnitLength(query.hidden);
  keys_ = keys_.defined() ? at::cat({keys_, unit}) : unit;
  tokens_ = tokens_.defined() ? at::cat({tokens_, query.targets}) : query.targets;
  const int64_t rows = unit.size(0);
  const int64_t count = keys_.size(0);
  const at::Tensor entry = at::arange(count, tokens_.options()).unsqueeze(0);
  const at::Tensor own = at::arange(count - rows, count, tokens_.options()).unsqueeze(1);
  const at::Tensor hidden = entry.ge(own).logical_or(entry.lt(own - tokens_max_));
  const at::Tensor scores = at::matmul(unit, keys_.t()).masked_fill(hidden, kLowest);
  at::Tensor mass = MassOf(scores, tokens_.unsqueeze(0).expand({rows, count}), query);
  const int64_t kept = std::min(count, tokens_max_);
  keys_ = keys_.narrow(0, count - kept, kept);
  tokens_ = tokens_.narrow(0, count - kept, kept);
  return mass;
}

}  // namespace retro
