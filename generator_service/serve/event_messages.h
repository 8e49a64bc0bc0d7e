// The engine's outputs as the messages of generator.proto.
#pragma once

#include <cstdint>
#include <memory>

#include "common/base/byte_budget.h"
#include "generator_service/engine/generation.h"
#include "retro/generator/v1/generator.pb.h"

namespace retro {

generator::v1::TokenEvent TokenMessage(const TokenOutput& output);
generator::v1::RetrievalEvent RetrievalMessage(const ChunkOutput& output);
// What the output's neighbours hold (see ShownNeighbours), for whoever keeps their message; may be null.
std::shared_ptr<const HeldBytes> HeldBy(const ChunkOutput& output);
// `seed` and `offset`: those of the request.
generator::v1::FinishEvent FinishMessage(const FinishOutput& output, uint64_t seed, int64_t offset);

}  // namespace retro
