#include "generator_service/model/cca.h"

#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "generator_service/model/attention.h"
#include "generator_service/model/neighbour_attention.h"

namespace retro {
namespace {

// Spans of one shape, which are computed as one batch.
using Shape = std::tuple<int64_t, int64_t, int64_t>;  // rows, first place, keys
using Group = std::vector<AttendingSpan*>;

std::vector<Group> GroupByShape(const Group& spans, int64_t cca_index) {
  std::map<Shape, Group> by_shape;
  std::vector<Group> groups;
  for (AttendingSpan* const span : spans) {
    if (span->apart) {
      groups.push_back({span});
    } else {
      by_shape[{span->rows, span->first_place, span->memory->keys[cca_index].size(1)}].push_back(span);
    }
  }
  for (auto& [shape, group] : by_shape) groups.push_back(std::move(group));
  return groups;
}

at::Tensor Stack(const Group& group, const auto& part) {
  if (group.size() == 1) return part(*group[0]).unsqueeze(0);
  std::vector<at::Tensor> parts;
  for (const AttendingSpan* span : group) parts.push_back(part(*span));
  return at::stack(parts);
}

void AddMass(AttendingSpan& span, const at::Tensor& mass /* [T, k] */) {
  span.mass = span.mass.defined() ? span.mass + mass : mass;
}

void AddMasses(const Group& group, const at::Tensor& shares /* [B, H, T, k * r] */, int64_t neighbour_length) {
  const int64_t neighbours = shares.size(3) / neighbour_length;
  const at::Tensor by_neighbour = shares.unflatten(3, {neighbours, neighbour_length}).sum(4).mean(1);  // [B, T, k]
  for (size_t b = 0; b < group.size(); ++b) {
    if (group[b]->want_mass) AddMass(*group[b], by_neighbour[static_cast<int64_t>(b)]);
  }
}

// Where the queries of a span stand, for a rotation: [T]. As in retro-pytorch, whose weights are the only ones that
// rotate here: the span's first query at 2m-2, all others at 0.
at::Tensor RotaryPlaces(const ModelConfig& config, const AttendingSpan& span, const at::Tensor& like) {
  const at::Tensor places = at::arange(span.first_place, span.first_place + span.rows, like.options().dtype(at::kLong));
  return places.eq(0).to(at::kLong) * (2 * config.chunk_length - 2);
}

// [B, T, H * c]. query: [N, H * c].
at::Tensor AttendGroup(const AttentionWeights& weights, const ModelConfig& config, int64_t cca_index,
                       const at::Tensor& query, const Group& group) {
  const AttendingSpan& first = *group[0];
  const auto rows_of = [&](const AttendingSpan& span) { return query.narrow(0, span.first_row, span.rows); };
  const auto memories = [&](const auto& part) {
    return Stack(group, [&](const AttendingSpan& span) { return part(*span.memory); }).to(query.scalar_type());
  };
  AttentionInput input{.query = SplitHeads(Stack(group, rows_of), weights.heads),
                       .key = memories([&](const ChunkMemory& memory) { return memory.keys[cca_index]; }),
                       .value = memories([&](const ChunkMemory& memory) { return memory.values[cca_index]; }),
                       .first_query = first.first_place};
  if (weights.rotary.defined()) input.query = weights.rotary(input.query, RotaryPlaces(config, first, query));
  if (weights.positions.defined()) {  // eq. 6; buckets count from the span's first query over all neighbours in a row
    input.first_query += config.chunk_length - 1;
    input.stretches = input.key.size(2) / config.neighbour_length;
  }
  if (config.mask_pad) {
    const at::Tensor pad = Stack(group, [](const AttendingSpan& span) { return span.memory->absent; });
    MaskPadKeys(config, pad.unsqueeze(1).unsqueeze(1), input);
  }
  bool want_mass = false;
  for (const AttendingSpan* span : group) want_mass = want_mass || span->want_mass;
  at::Tensor shares;
  at::Tensor attended = JoinHeads(RelativeAttention(weights, input, want_mass ? &shares : nullptr));
  if (want_mass) AddMasses(group, shares, config.neighbour_length);
  return attended;
}

// Spans of one row each: [spans, H * c]. query: [N, H * c]. Masses are taken on the side: who wants them gets the same
// output, to the bit.
at::Tensor AttendSingly(const AttentionWeights& weights, const ModelConfig& config, int64_t cca_index,
                        const at::Tensor& query, const Group& spans) {
  const int64_t inner = query.size(1);
  const at::Tensor rows = query.contiguous();
  at::Tensor attended = at::empty({static_cast<int64_t>(spans.size()), inner}, rows.options());
  std::vector<NeighbourQuery> queries;
  queries.reserve(spans.size());
  std::vector<at::Tensor> masses;  // [H, k], of those that are wanted
  for (const AttendingSpan* span : spans) {
    if (span->want_mass) {
      const int64_t neighbours = span->memory->keys[cca_index].size(1) / config.neighbour_length;
      masses.push_back(at::empty({weights.heads, neighbours}, rows.options()));
    }
    queries.push_back({.query = rows.const_data_ptr<float>() + span->first_row * inner,
                       .memory = span->memory.get(),
                       .place = span->first_place,
                       .attended = attended.data_ptr<float>() + static_cast<int64_t>(queries.size()) * inner,
                       .mass = span->want_mass ? masses.back().data_ptr<float>() : nullptr});
  }
  NeighbourAttention(weights, cca_index, config.neighbour_length, queries);
  auto mass = masses.begin();
  for (AttendingSpan* span : spans) {
    if (span->want_mass) AddMass(*span, (mass++)->mean(0, /*keepdim=*/true));
  }
  return attended;
}

}  // namespace

at::Tensor ChunkedCrossAttention(const AttentionWeights& weights, const ModelConfig& config, int64_t cca_index,
                                 const at::Tensor& h, std::span<AttendingSpan> spans) {
  const at::Tensor query = weights.query(weights.norm(h));  // [N, H * c]
  std::map<int64_t, at::Tensor> attended;                   // by first row: [T, H * c]
  Group single;
  Group others;
  const bool has_kernel = HasNeighbourAttention(weights) && !config.additive_pad_mask;
  for (AttendingSpan& span : spans) (has_kernel && span.rows == 1 ? single : others).push_back(&span);
  if (!single.empty()) {
    const at::Tensor outputs = AttendSingly(weights, config, cca_index, query, single);
    for (size_t b = 0; b < single.size(); ++b) {
      attended[single[b]->first_row] = outputs.narrow(0, static_cast<int64_t>(b), 1);
    }
  }
  for (const Group& group : GroupByShape(others, cca_index)) {
    const at::Tensor outputs = AttendGroup(weights, config, cca_index, query, group);
    for (size_t b = 0; b < group.size(); ++b) attended[group[b]->first_row] = outputs[static_cast<int64_t>(b)];
  }
  std::vector<at::Tensor> in_order;
  in_order.reserve(attended.size());
  for (const auto& [first_row, output] : attended) in_order.push_back(output);
  const at::Tensor added = weights.output(at::cat(in_order));  // [rows of all spans, d]

  std::vector<at::Tensor> rows;  // the spans' and zeros between them
  int64_t next_row = 0;
  int64_t next_added = 0;
  const auto fill_to = [&](int64_t row) {
    if (row > next_row) rows.push_back(at::zeros({row - next_row, h.size(1)}, h.options()));
  };
  for (const AttendingSpan& span : spans) {
    fill_to(span.first_row);
    const at::Tensor own = added.narrow(0, next_added, span.rows);
    rows.push_back(span.gate == 1.0 ? own : own * span.gate);
    next_added += span.rows;
    next_row = span.first_row + span.rows;
  }
  fill_to(h.size(0));
  return at::cat(rows);
}

}  // namespace retro
