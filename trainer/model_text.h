// A prepared folder as a model reads it: the data set and, if the model takes neighbours, their table.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "trainer/data_set.h"
#include "trainer/neighbour_table.h"

namespace retro {

struct ModelText {
  std::optional<DataSet> data;
  std::optional<NeighbourTable> neighbours;

  const NeighbourTable* table() const { return neighbours ? &*neighbours : nullptr; }
};

// FAILED_PRECONDITION: the folder was prepared with another tokenizer or chunk length than the model's. A folder for a
// model with CCA must have neighbours.
absl::Status OpenModelText(const std::string& folder, const CheckpointInfo& model, ModelText& text);

}  // namespace retro
