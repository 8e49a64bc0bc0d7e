// A forward that runs out of memory, wherever it does, leaves its sequences where they were: the same step again gives
// the same logits, to the bit, as if nothing had happened.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <iostream>
#include <memory>
#include <new>
#include <span>
#include <vector>

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

}  // namespace
}  // namespace retro
