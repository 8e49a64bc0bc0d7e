// What an operator may choose of an index; everything else follows from its size (tuning.h).
#pragma once

#include <cstdint>

#include "retriever_service/index/tuning.h"

namespace retro {

struct IndexSettings {
  SegmentKind kind = SegmentKind::kPq4;
  // Rows at which the growing segment is sealed. Comparing so many takes about as long as the lists of a million.
  uint64_t seal_rows = 16'384;
  int threads = 1;  // that train; searches bring their own
};

}  // namespace retro
