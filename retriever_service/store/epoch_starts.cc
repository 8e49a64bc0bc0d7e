#include "retriever_service/store/epoch_starts.h"

#include <algorithm>

#include "retriever_service/store/layout.h"

namespace retro {

void EpochStarts::Add(const shardpb::Position& start) {
  if (starts_.size() == kMax) starts_.erase(starts_.begin());
  starts_.push_back(start);
}

bool EpochStarts::RuleOut(const shardpb::Position& position) const {
  const auto later = [](const shardpb::Position& a, const shardpb::Position& b) { return a.epoch() < b.epoch(); };
  const auto next = std::upper_bound(starts_.begin(), starts_.end(), position, later);
  return next != starts_.end() && position.number() >= next->number();
}

std::string EpochStarts::Encode() const {
  std::string bytes;
  for (const shardpb::Position& start : starts_) bytes += ChangeKey(start);
  return bytes;
}

std::optional<EpochStarts> EpochStarts::Decode(std::string_view bytes) {
  EpochStarts starts;
  const size_t width = ChangeKey({}).size();
  for (; !bytes.empty(); bytes.remove_prefix(std::min(width, bytes.size()))) {
    const auto start = PositionOfKey(bytes.substr(0, width));
    const bool in_order = start.has_value() && (starts.starts_.empty() || IsBefore(starts.starts_.back(), *start));
    if (!in_order || starts.starts_.size() == kMax) return std::nullopt;
    starts.Add(*start);
  }
  return starts;
}

}  // namespace retro
