// What is read back from disk and from clients' hands: keys and values of the store, consistency tokens.
#include "retriever_service/query/consistency_token.h"
#include "retriever_service/store/layout.h"
#include "tests/fuzz/fuzz.h"

namespace retro {
namespace {

const char kStore[] = "0123456789abcdef";

}  // namespace

std::vector<std::string> FuzzSeeds() {
  shardpb::ConsistencyToken token;
  token.set_store_id(kStore);
  Cover(token, 3, MakePosition(1, 7));
  shardpb::ChunkRange rows;
  rows.set_first_chunk_id(MakeChunkId(5, 77));
  rows.set_count(3);
  return {EncodeConsistencyToken(token),
          EncodeTombstone({1, rows}),
          ChunkKey(1, MakeChunkId(9, 4095)),
          ChangeKey(MakePosition(2, 3)),
          Encode32(7),
          Encode64(7)};
}

void FuzzOne(std::string_view input) {
  if (const auto value = Decode32(input)) Require(Encode32(*value) == input, "a number changes");
  if (const auto value = Decode64(input)) Require(Encode64(*value) == input, "a number changes");
  if (const auto position = PositionOfKey(input)) Require(ChangeKey(*position) == input, "a position changes");
  if (const auto tombstone = DecodeTombstone(input)) {
    const auto again = DecodeTombstone(EncodeTombstone(*tombstone));
    Require(again.has_value() && again->collection == tombstone->collection &&
                again->rows.SerializeAsString() == tombstone->rows.SerializeAsString(),
            "a tombstone changes");
  }
  const auto token = DecodeConsistencyToken(input, kStore);
  if (token.ok() && !input.empty()) {
    Require(DecodeConsistencyToken(EncodeConsistencyToken(*token), kStore).ok(), "a token is not read again");
  }
}

}  // namespace retro
