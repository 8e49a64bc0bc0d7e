#include "generator_service/checkpoints/foreign_layout.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

// [rows, ...] -> [groups, parts, rows / groups / parts, ...]
at::Tensor ByPart(const at::Tensor& foreign, const ForeignWeight& place) {
  return foreign.unflatten(0, {place.groups, place.parts, foreign.size(0) / (place.groups * place.parts)});
}

at::Tensor Plain(const at::Tensor& ours, const ForeignWeight& place) {
  const at::Tensor stored = place.offset == 0 ? ours : ours - place.offset;
  return place.transposed ? stored.t().contiguous() : stored;
}

}  // namespace

std::vector<int64_t> ForeignShape(const WeightSpec& spec, const ForeignWeight& place) {
  std::vector<int64_t> shape = spec.shape;
  shape[0] *= place.parts;
  if (place.transposed) std::swap(shape[0], shape[1]);
  return shape;
}

at::Tensor TakePart(const at::Tensor& foreign, const WeightSpec& spec, const ForeignWeight& place) {
  at::Tensor ours = foreign;
  if (place.transposed) ours = ours.t().contiguous();
  if (place.parts > 1) ours = ByPart(ours, place).select(1, place.part).reshape(spec.shape).clone();
  return place.offset == 0 ? ours : ours + place.offset;
}

absl::StatusOr<std::map<std::string, at::Tensor>> ForeignTensors(const std::vector<WeightSpec>& table,
                                                                 const std::map<std::string, at::Tensor>& weights,
                                                                 const ForeignPlace& place) {
  std::map<std::string, std::vector<at::Tensor>> parts;  // by foreign name, [groups, rows / groups, ...] each
  std::map<std::string, ForeignWeight> places;
  for (const WeightSpec& spec : table) {
    RETRO_ASSIGN_OR_RETURN(const ForeignWeight where, place(spec));
    std::vector<at::Tensor>& all = parts[where.name];
    all.resize(where.parts);
    if (all[where.part].defined()) return absl::InternalError(StrCat(where.name, " is named by two weights"));
    all[where.part] = Plain(weights.at(spec.name), where);
    places[where.name] = where;
  }
  std::map<std::string, at::Tensor> tensors;
  for (auto& [name, all] : parts) {
    const ForeignWeight& where = places[name];
    std::vector<at::Tensor> grouped;
    for (const at::Tensor& part : all) {
      if (!part.defined()) return absl::InternalError(StrCat(name, " lacks a part"));
      grouped.push_back(part.unflatten(0, {where.groups, part.size(0) / where.groups}));
    }
    tensors[name] = where.parts == 1 ? all[0] : at::stack(grouped, 1).flatten(0, 2).contiguous();
  }
  return tensors;
}

}  // namespace retro
