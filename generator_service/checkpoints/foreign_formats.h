// The formats, one file each. Their layouts are described where they are implemented.
#pragma once

#include "generator_service/checkpoints/foreign_format.h"

namespace retro {

ForeignFormat PaperFormat();
ForeignFormat NorlundFormat();
ForeignFormat MegatronFormat();
ForeignFormat InstructRetroFormat();
ForeignFormat LucidrainsFormat();

// A weight's name as its parts: "decoder.3.cca.query" -> on "decoder", layer 3 (from 1), block "cca", leaf "query";
// "decoder.final_norm" -> layer 0, no block.
struct WeightName {
  bool in_encoder = false;
  int64_t layer = 0;
  std::string block;
  std::string leaf;
};
WeightName ParseWeightName(const std::string& name);

// What a format without a place for a weight says.
absl::Status NoPlaceFor(const WeightSpec& spec);

}  // namespace retro
