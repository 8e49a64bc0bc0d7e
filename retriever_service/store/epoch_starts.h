// Where each of a shard's epochs began: what tells a change that a store has from one of the same number that it lost.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/document/protos.h"
#include "retro/shard/v1/shard.pb.h"

namespace retro {

class EpochStarts {
 public:
  // Of the newest epochs; an older token is judged by the oldest that is kept.
  static constexpr size_t kMax = 1024;

  // The first change of an epoch later than all before.
  void Add(const shardpb::Position& start);
  // Whether a store with these epochs will never have the change at `position`: a later epoch began without it.
  bool RuleOut(const shardpb::Position& position) const;

  // The bytes are in FORMAT.md. Nothing if they are of another length or not in order.
  std::string Encode() const;
  static std::optional<EpochStarts> Decode(std::string_view bytes);

 private:
  std::vector<shardpb::Position> starts_;  // in order
};

}  // namespace retro
