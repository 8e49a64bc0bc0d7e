// Sequences longer than the model's context: the caches that drop their oldest block against the reference's full
// forward under a banded mask.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <iostream>

#include "generator_service/model/context_window.h"
#include "tests/paper_reference.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

constexpr double kTolerance = 1e-4;  // fp32 against fp64

TEST(ContextWindowTest, TheOldestBlockLeavesWhenTheWindowIsFull) {
  const ContextWindow window(6, 2);
  const std::vector<int64_t> begins = {0, 0, 0, 0, 0, 0, 2, 2, 4, 4, 6};
  for (int64_t position = 0; position < static_cast<int64_t>(begins.size()); ++position) {
    EXPECT_EQ(window.Begin(position), begins[static_cast<size_t>(position)]) << position;
    EXPECT_LE(position + 1 - window.Begin(position), 6);
    for (int64_t next = position; next < position + window.Room(position); ++next) {
      EXPECT_EQ(window.Begin(next), window.Begin(position));
    }
    EXPECT_GT(window.Begin(position + window.Room(position)), window.Begin(position));
  }
  EXPECT_EQ(ContextWindow(7, 4).Begin(7), 4);  // a context that is no multiple of the block
}

struct Case {
  std::string name;
  int64_t context;
};

class SlidingWindowTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    reference_ = LoadPaperReference(GetParam().name, GetParam().context);
    expected_ = LoadSlidingReference(GetParam().name, GetParam().context);
  }

  std::unique_ptr<Sequence> NewSequence() const {
    auto sequence = reference_.model->NewSequence({.offset = reference_.offset, .slide = true});
    EXPECT_TRUE(sequence.ok()) << sequence.status();
    return *std::move(sequence);
  }

  PaperReference reference_;
  at::Tensor expected_;
};

TEST_P(SlidingWindowTest, PiecesOfAnySizeEqualTheBandedMask) {
  const auto n = static_cast<int64_t>(reference_.tokens.size());
  for (const int64_t size : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{7}, n}) {
    const auto sequence = NewSequence();
    double worst = 0;
    int64_t used = 0;
    for (int64_t begin = 0; begin < n;) {
      const int64_t count = std::min({size, n - begin, sequence->room()});
      const int64_t chunks = sequence->ChunksCompletedBy(count);
      const Piece piece{.sequence = sequence.get(),
                        .tokens = std::span(reference_.tokens).subspan(begin, count),
                        .neighbours = std::span(reference_.neighbours).subspan(used, chunks),
                        .logit_rows = kAllRows};
      const auto logits = reference_.model->Forward({&piece, 1});
      ASSERT_TRUE(logits.ok()) << logits.status();
      const at::Tensor difference = logits->at(0).to(at::kDouble) - expected_.narrow(0, begin, count);
      worst = std::max(worst, difference.abs().max().item<double>());
      used += chunks;
      begin += count;
    }
    std::cout << "pieces of " << size << ": max |diff| " << worst << "\n";
    EXPECT_LE(worst, kTolerance) << size;
  }
}

TEST_P(SlidingWindowTest, APieceEndsWhereTheWindowMovesOn) {
  const auto sequence = NewSequence();
  const Piece piece{
      .sequence = sequence.get(),
      .tokens = std::span(reference_.tokens).first(GetParam().context + 1),
      .neighbours = std::span(reference_.neighbours).first(sequence->ChunksCompletedBy(GetParam().context + 1))};
  EXPECT_EQ(reference_.model->Forward({&piece, 1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sequence->position(), 0);
}

TEST(LearnedPositionsTest, AModelWithARowForEachPositionCannotSlide) {
  const auto golden = OpenGolden("lucidrains", SourcePath("tests/goldens/foreign/lucidrains_tiny"));
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto model = *RetroModel::Create(golden->config(), *golden->ReadAll(), TestDevice());
  EXPECT_TRUE(model->NewSequence({}).ok());
  EXPECT_EQ(model->NewSequence({.slide = true}).status().code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Goldens, SlidingWindowTest,
                         testing::Values(Case{"paper_tiny", 16}, Case{"paper_tiny_mask_offset_share", 16},
                                         Case{"paper_tiny_ragged", 13}, Case{"paper_tiny_variant", 8}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace retro
