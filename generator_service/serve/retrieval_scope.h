// What one request wants of the retriever, and what it showed for a chunk: the two things that travel through the
// engine without its knowing them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "common/base/byte_budget.h"
#include "generator_service/engine/neighbour_source.h"
#include "retro/generator/v1/generator.pb.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

struct RetrievalScope : NeighbourScope {
  retriever::v1::SearchRequest search;  // everything but the queries
  std::string search_key;               // its bytes: look-ups with equal ones may go out as one call
  // The caller's own, by chunk; their ids are the model's, cut to fit.
  std::map<int64_t, generator::v1::ChunkNeighbours> given;
  bool append = false;  // given ones come first and found ones fill up to k, instead of taking the look-up's place
  bool go_on_without = false;  // a failed look-up leaves the given ones, instead of ending the generation
  std::chrono::milliseconds timeout_ms{2000};
  std::string key;                // whom its bytes are for; see ByteBudget
  std::optional<HeldBytes> held;  // what `search` and `given` take as objects, which may be many times their bytes
};

struct ShownNeighbours : NeighbourDetails {
  generator::v1::ChunkNeighbours message;  // with the ids that the encoder was given
  std::optional<retriever::v1::SearchTimes> times;
  std::shared_ptr<const HeldBytes> held;  // what the retriever gave; null: nothing. Goes on to who keeps the message
};

}  // namespace retro
