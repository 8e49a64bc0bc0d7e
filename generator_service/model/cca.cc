#include "generator_service/model/cca.h"

#include <map>
#include <tuple>

#include "generator_service/model/attention.h"
#include "generator_service/model/blocks.h"
#include "generator_service/model/position_tables.h"

namespace retro {
namespace {

// Spans of one shape, which are computed as one batch.
using Shape = std::tuple<int64_t, int64_t, int64_t>;  // rows, first place, keys
using Group = std::vector<AttendingSpan*>;

std::map<Shape, Group> GroupByShape(std::span<AttendingSpan> spans, int64_t cca_index) {
  std::map<Shape, Group> groups;
  for (AttendingSpan& span : spans) {
    groups[{span.rows, span.first_place, span.memory->keys[cca_index].size(1)}].push_back(&span);
  }
  return groups;
}

at::Tensor Stack(const Group& group, const auto& part) {
  if (group.size() == 1) return part(*group[0]).unsqueeze(0);
  std::vector<at::Tensor> parts;
  for (const AttendingSpan* span : group) parts.push_back(part(*span));
  return at::stack(parts);
}

void AddMass(const Group& group, const at::Tensor& shares /* [B, H, T, k * r] */, int64_t neighbour_length) {
  const at::Tensor by_neighbour = shares.unflatten(3, {-1, neighbour_length}).sum(4).mean(1);  // [B, T, k]
  for (size_t b = 0; b < group.size(); ++b) {
    if (!group[b]->want_mass) continue;
    const at::Tensor mass = by_neighbour[static_cast<int64_t>(b)];
    group[b]->mass = group[b]->mass.defined() ? group[b]->mass + mass : mass;
  }
}

// [B, T, H * c]. query: [N, H * c].
at::Tensor AttendGroup(const AttentionWeights& weights, const ModelConfig& config, int64_t cca_index,
                       const at::Tensor& query, const Group& group) {
  const AttendingSpan& first = *group[0];
  const auto rows_of = [&](const AttendingSpan& span) { return query.narrow(0, span.first_row, span.rows); };
  AttentionInput input{.query = SplitHeads(Stack(group, rows_of), weights.heads),
                       .key = Stack(group, [&](const AttendingSpan& span) { return span.memory->keys[cca_index]; }),
                       .value = Stack(group, [&](const AttendingSpan& span) { return span.memory->values[cca_index]; }),
                       .positions = CcaRows(weights.positions, config, first.first_place, first.rows),
                       .stretches = first.memory->keys[cca_index].size(1) / config.neighbour_length};
  if (config.mask_pad) {
    input.absent =
        Stack(group, [](const AttendingSpan& span) { return span.memory->absent; }).unsqueeze(1).unsqueeze(1);
  }
  bool want_mass = false;
  for (const AttendingSpan* span : group) want_mass = want_mass || span->want_mass;
  at::Tensor shares;
  at::Tensor attended = JoinHeads(RelativeAttention(weights, input, want_mass ? &shares : nullptr));
  if (want_mass) AddMass(group, shares, config.neighbour_length);
  return attended;
}

}  // namespace

at::Tensor ChunkedCrossAttention(const AttentionWeights& weights, const ModelConfig& config, int64_t cca_index,
                                 const at::Tensor& h, std::span<AttendingSpan> spans) {
  const at::Tensor query = weights.query(RmsNorm(h, weights.norm, config.norm_eps));  // [N, H * c]
  std::map<int64_t, at::Tensor> attended;                                             // by first row: [T, H * c]
  for (const auto& [shape, group] : GroupByShape(spans, cca_index)) {
    const at::Tensor outputs = AttendGroup(weights, config, cca_index, query, group);
    for (size_t b = 0; b < group.size(); ++b) {
      const at::Tensor output = outputs[static_cast<int64_t>(b)];
      attended[group[b]->first_row] = group[b]->gate == 1.0 ? output : output * group[b]->gate;
    }
  }
  std::vector<at::Tensor> rows;  // the spans' and zeros between them
  int64_t next_row = 0;
  const auto fill_to = [&](int64_t row) {
    if (row > next_row) rows.push_back(at::zeros({row - next_row, query.size(1)}, query.options()));
  };
  for (const auto& [first_row, output] : attended) {
    fill_to(first_row);
    rows.push_back(output);
    next_row = first_row + output.size(0);
  }
  fill_to(query.size(0));
  return weights.output(at::cat(rows));
}

}  // namespace retro
