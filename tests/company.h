// Texts that are computed alone and together, for the promise that the reference's results are the same to the bit.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "generator_service/model/model.h"
#include "gtest/gtest.h"

namespace retro {

// Texts of one model that differ in length, offset, retrieval and neighbours.
struct Company {
  Company(const RetroModel& model, int64_t texts, int64_t length) : model(model) {
    const ModelConfig& config = model.config();
    for (int64_t i = 0; i < texts; ++i) {
      const int64_t tokens = length - i * 3;
      sequences.push_back(*model.NewSequence({.offset = i % config.chunk_length, .retrieval = i % 4 != 3}));
      auto& ids = tokens_of.emplace_back();
      for (int64_t t = 0; t < tokens; ++t)
        ids.push_back(static_cast<TokenId>((t * 31 + i * 17 + 5) % config.vocabulary));
      auto& chunks = neighbours_of.emplace_back();
      if (i % 4 != 3) chunks.resize(sequences[i]->ChunksCompletedBy(tokens));
      for (ChunkNeighbours& chunk : chunks) {
        chunk.count = 1 + i % 2;
        chunk.tokens.assign(chunk.count * config.neighbour_length, static_cast<TokenId>(i % 50 + 3));
      }
    }
  }
  Piece PieceOf(int64_t i) const {
    return {
        .sequence = sequences[i].get(), .tokens = tokens_of[i], .neighbours = neighbours_of[i], .logit_rows = kAllRows};
  }

  const RetroModel& model;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<std::vector<TokenId>> tokens_of;
  std::vector<std::vector<ChunkNeighbours>> neighbours_of;
};

inline void ExpectTheSameAloneAndTogether(const RetroModel& model, int64_t texts, int64_t length) {
  const Company alone(model, texts, length);
  const Company together(model, texts, length);
  std::vector<Piece> pieces;
  for (int64_t i = 0; i < texts; ++i) {
    pieces.push_back(together.PieceOf(i));
    pieces.back().want_mass = i % 2 == 0;  // which changes no logit
  }
  const auto batch = model.Forward(pieces);
  ASSERT_TRUE(batch.ok()) << batch.status();
  for (int64_t i = 0; i < texts; ++i) {
    const Piece piece = alone.PieceOf(i);
    const auto single = model.Forward({&piece, 1});
    ASSERT_TRUE(single.ok()) << single.status();
    EXPECT_TRUE(at::equal(single->at(0), batch->at(i))) << i;
  }
}

}  // namespace retro
