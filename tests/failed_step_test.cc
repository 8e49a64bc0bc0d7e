// A forward that runs out of memory, wherever it does, leaves its sequences where they were: the same step again gives
// the same logits, to the bit, as if nothing had happened.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <vector>

#include "generator_service/engine/fixed_decoder.h"
#include "generator_service/engine/sampler.h"
#include "generator_service/model/model.h"
#include "tests/tiny_model.h"
#include "tests/torch_memory.h"

namespace retro {
namespace {

// One allocation may be told to fail.
class FailingAllocator : public TorchMemory {
 public:
  // The allocation after `allocations` others fails; a negative number: none does.
  void FailAfter(int64_t allocations) { left_ = allocations; }
  bool failed() const { return left_ < 0; }

 protected:
  void BeforeAllocation() override {
    const bool fails = left_ == 0;
    if (left_ >= 0) --left_;
    if (fails) throw std::bad_alloc();
  }

 private:
  int64_t left_ = -1;
};

// Two sequences, one of which completes a chunk with neighbours and wants its masses.
class Sequences {
 public:
  explicit Sequences(const RetroModel& model) : model_(model), first_(*model.NewSequence({})) {
    second_ = *model.NewSequence({.retrieval = false});
    const int64_t r = model.config().neighbour_length;
    neighbours_.resize(3);
    for (size_t chunk = 0; chunk < neighbours_.size(); ++chunk) {
      neighbours_[chunk].count = 2;
      neighbours_[chunk].tokens.assign(2 * r, static_cast<TokenId>(70 + chunk));
    }
  }

  // Their next tokens, `rows` each.
  absl::StatusOr<std::vector<at::Tensor>> Step(int64_t rows) {
    const auto begin = static_cast<size_t>(first_->position());
    const std::span<const TokenId> tokens = std::span(text_).subspan(begin, rows);
    const auto known = static_cast<size_t>(first_->geometry().CompleteChunks(first_->position()));
    const std::vector<Piece> pieces = {
        {.sequence = first_.get(),
         .tokens = tokens,
         .neighbours = std::span(neighbours_).subspan(known, first_->ChunksCompletedBy(rows)),
         .logit_rows = kAllRows,
         .want_mass = true},
        {.sequence = second_.get(), .tokens = tokens}};
    return model_.Forward(pieces);
  }

  int64_t position() const { return first_->position(); }
  const std::vector<std::vector<float>>& mass() const { return first_->attention_mass(); }

 private:
  const RetroModel& model_;
  const std::vector<TokenId> text_ = Ids("the text of both sequences");
  std::vector<ChunkNeighbours> neighbours_;
  std::unique_ptr<Sequence> first_;
  std::unique_ptr<Sequence> second_;
};

TEST(FailedStepTest, OutOfMemoryAnywhereLeavesTheSequencesWhereTheyWere) {
  at::set_num_threads(1);
  const auto model = MakeTinyModel();
  constexpr int64_t kRows = 12;  // the first chunk, and half of the one that attends to its neighbours
  Sequences undisturbed(*model);
  const std::vector<at::Tensor> expected_first = *undisturbed.Step(kRows);
  const auto expected_mass = undisturbed.mass();
  const std::vector<at::Tensor> expected_second = *undisturbed.Step(kRows);

  FailingAllocator memory;
  int64_t failures = 0;
  for (bool failed = true; failed; ++failures) {
    Sequences sequences(*model);
    memory.FailAfter(failures);
    auto first = sequences.Step(kRows);
    failed = memory.failed() && !first.ok();
    memory.FailAfter(-1);
    if (failed) {
      ASSERT_EQ(first.status().code(), absl::StatusCode::kResourceExhausted) << first.status();
      ASSERT_EQ(sequences.position(), 0) << "allocation " << failures;
      first = sequences.Step(kRows);
    }
    ASSERT_TRUE(first.ok()) << first.status();
    ASSERT_EQ(sequences.mass(), expected_mass) << "allocation " << failures;
    const auto second = *sequences.Step(kRows);
    for (size_t i = 0; i < second.size(); ++i) {
      ASSERT_TRUE(at::equal((*first)[i], expected_first[i])) << "allocation " << failures;
      ASSERT_TRUE(at::equal(second[i], expected_second[i])) << "allocation " << failures;
    }
  }
  std::cout << "a step makes " << failures - 1 << " allocations\n";
  EXPECT_GT(failures, 10);
}

// Two sequences before the last token of the first one's chunk, which FixedDecoder feeds.
class DecodedSequences {
 public:
  DecodedSequences(const RetroModel& model, FixedDecoder& decoder) : model_(model), decoder_(decoder) {
    for (const bool retrieval : {true, false}) {
      auto& sequence = sequences_.emplace_back(*model.NewSequence({.retrieval = retrieval}));
      const Piece prompt{.sequence = sequence.get(), .tokens = std::span(text_).first(model.config().chunk_length - 1)};
      EXPECT_TRUE(model.Forward({&prompt, 1}).ok());
    }
    neighbours_.tokens.assign(2 * model.config().neighbour_length, 70);
  }
  ~DecodedSequences() {
    for (uint64_t id : {1, 2}) decoder_.End(id);
  }
  DecodedSequences(const DecodedSequences&) = delete;
  DecodedSequences& operator=(const DecodedSequences&) = delete;

  // Their next tokens; nothing if the step failed.
  std::optional<std::vector<ScoredToken>> Step() {
    std::vector<FixedRow> rows;
    for (uint64_t id : {1, 2}) {
      rows.push_back({id, NextPiece(id), {&settings_, &seen_, static_cast<uint64_t>(position())}});
      EXPECT_TRUE(decoder_.Takes(rows.back()));
    }
    return decoder_.Step(rows);
  }
  // The same tokens the other way.
  void StepFreely() {
    const std::vector<Piece> pieces = {NextPiece(1), NextPiece(2)};
    EXPECT_TRUE(model_.Forward(pieces).ok());
  }

  int64_t position() const { return sequences_[0]->position(); }

 private:
  Piece NextPiece(uint64_t id) {
    Sequence& sequence = *sequences_[id - 1];
    const bool completes = sequence.options().retrieval && sequence.ChunksCompletedBy(1) > 0;
    const std::span<const TokenId> token = std::span(text_).subspan(static_cast<size_t>(sequence.position()), 1);
    seen_.Add(token[0]);  // as when it was sampled
    return {.sequence = &sequence,
            .tokens = token,
            .neighbours = std::span<const ChunkNeighbours>(&neighbours_, completes ? 1 : 0)};
  }

  const RetroModel& model_;
  FixedDecoder& decoder_;
  const std::vector<TokenId> text_ = Ids("the text of both sequences");
  // Of the tokens that were there the likeliest.
  const SamplingSettings settings_{.temperature = 0, .repetition_penalty = 1e-4F, .logit_bias = {{7, 2.0F}}};
  SeenTokens seen_{model_.config().vocabulary};
  ChunkNeighbours neighbours_{.count = 2, .tokens = {}};
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

void ExpectEqual(const std::vector<ScoredToken>& a, const std::vector<ScoredToken>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].id, b[i].id);
    EXPECT_EQ(a[i].logprob, b[i].logprob);
  }
}

TEST(FailedStepTest, OutOfMemoryAnywhereInAStepOfFixedShapeIsAsIfNothingHadHappened) {
  at::set_num_threads(1);
  const auto model = MakeTinyModel();
  const auto decoder = *FixedDecoder::Create(*model, {.rows_max = 2});
  std::vector<std::vector<ScoredToken>> expected;  // of the token that completes the chunk, and of the one after it
  {
    DecodedSequences undisturbed(*model, *decoder);
    for (int step = 0; step < 2; ++step) expected.push_back(*undisturbed.Step());
  }
  FailingAllocator memory;
  int64_t failures = 0;
  for (bool failed = true; failed; ++failures) {
    SCOPED_TRACE(testing::Message() << "allocation " << failures);
    DecodedSequences sequences(*model, *decoder);
    const int64_t position = sequences.position();
    memory.FailAfter(failures);
    auto first = sequences.Step();
    failed = memory.failed() && !first.has_value();
    memory.FailAfter(-1);
    ASSERT_EQ(sequences.position(), failed ? position : position + 1);
    const bool freely = failed && failures % 2 == 1;
    if (freely) sequences.StepFreely();
    if (failed && !freely) first = sequences.Step();
    ASSERT_TRUE(first.has_value() || freely);
    if (first.has_value()) ExpectEqual(*first, expected[0]);
    const auto second = *sequences.Step();
    for (size_t i = 0; i < second.size(); ++i) EXPECT_EQ(second[i].id, expected[1][i].id);
    if (!freely) ExpectEqual(second, expected[1]);
  }
  std::cout << "a step of fixed shape that completes a chunk makes " << failures - 1 << " allocations\n";
  EXPECT_GT(failures, 10);
}

}  // namespace
}  // namespace retro
