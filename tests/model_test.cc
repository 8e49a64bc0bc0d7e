// The model against the fp64 reference, against itself in pieces, and against the paper's statements about causality.
#include "generator_service/model/model.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "generator_service/checkpoints/random_init.h"
#include "generator_service/model/decoder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/paper_reference.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

constexpr double kTolerance = 1e-4;  // fp32 against fp64, and one way of computing against another

struct RunOptions {
  int64_t offset = 0;
  bool retrieval = true;
  std::optional<double> gate;
};

// Runs the tokens in pieces of `piece` tokens (0: all at once) and returns the logits of all: [n, V].
at::Tensor Logits(const RetroModel& model, std::span<const TokenId> tokens, std::span<const ChunkNeighbours> neighbours,
                  const RunOptions& run, int64_t piece = 0, Trace* trace = nullptr) {
  auto sequence = model.NewSequence({.offset = run.offset, .retrieval = run.retrieval, .gate = run.gate});
  EXPECT_TRUE(sequence.ok()) << sequence.status();
  const int64_t n = static_cast<int64_t>(tokens.size());
  std::vector<at::Tensor> logits;
  int64_t used = 0;
  for (int64_t begin = 0; begin < n;) {
    const int64_t count = piece == 0 ? n : std::min(piece, n - begin);
    const int64_t chunks = run.retrieval ? (*sequence)->ChunksCompletedBy(count) : 0;
    const Piece next{.sequence = sequence->get(),
                     .tokens = tokens.subspan(begin, count),
                     .neighbours = neighbours.subspan(used, chunks),
                     .logit_rows = kAllRows,
                     .trace = trace};
    const auto result = model.Forward({&next, 1});
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return {};
    logits.push_back(result->at(0));
    used += chunks;
    begin += count;
  }
  return at::cat(logits).to(at::kCPU);
}

// Prints the greatest difference and where it is.
double MaxDifference(const std::string& what, const at::Tensor& ours, const at::Tensor& theirs) {
  EXPECT_EQ(ours.sizes(), theirs.sizes()) << what;
  const at::Tensor difference = (ours.to(at::kCPU, at::kDouble) - theirs).abs().flatten();
  const int64_t worst = difference.argmax().item<int64_t>();
  const double value = difference[worst].item<double>();
  std::cout << what << ": max |diff| " << value << " at flat index " << worst << "\n";
  return value;
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0.0 : (a.to(at::kCPU, at::kDouble) - b.to(at::kCPU, at::kDouble)).abs().max().item<double>();
}

class ReferenceTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    reference_ = LoadPaperReference(GetParam());
  }
  at::Tensor Full(const RunOptions& run, Trace* trace = nullptr) const {
    return Logits(*reference_.model, reference_.tokens, reference_.neighbours, run, 0, trace);
  }

  PaperReference reference_;
};

TEST_P(ReferenceTest, FullForwardEqualsReference) {
  Trace trace;
  const at::Tensor logits = Full({.offset = reference_.offset}, &trace);
  EXPECT_LE(MaxDifference("conditioning", trace.conditioning, reference_.conditioning), kTolerance);
  EXPECT_LE(MaxDifference("E", trace.encoded, reference_.encoded), kTolerance);
  EXPECT_LE(MaxDifference("last H", trace.last, reference_.last), kTolerance);
  EXPECT_LE(MaxDifference("logits", logits, reference_.logits), kTolerance);
}

TEST_P(ReferenceTest, WithoutRetrievalItIsThePlainModel) {
  const RunOptions off{.offset = reference_.offset, .retrieval = false};
  EXPECT_LE(MaxDifference("logits off", Full(off), reference_.logits_off), kTolerance);
  // Chunks without neighbours, and a closed gate, are the same to the bit.
  const std::vector<ChunkNeighbours> none(reference_.neighbours.size());
  const at::Tensor plain = Full(off);
  EXPECT_TRUE(at::equal(plain, Logits(*reference_.model, reference_.tokens, none, {.offset = reference_.offset})));
  EXPECT_TRUE(at::equal(plain, Full({.offset = reference_.offset, .gate = 0.0})));
}

TEST_P(ReferenceTest, PiecesOfAnySizeEqualTheWhole) {
  const int64_t m = reference_.model->config().chunk_length;
  for (const int64_t piece : {int64_t{1}, int64_t{3}, int64_t{7}, m}) {
    const at::Tensor logits =
        Logits(*reference_.model, reference_.tokens, reference_.neighbours, {.offset = reference_.offset}, piece);
    EXPECT_LE(MaxDifference("pieces of " + std::to_string(piece), logits, reference_.logits), kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, ReferenceTest, ::testing::ValuesIn(PaperReferenceNames()),
                         [](const auto& info) { return info.param; });

// The exhaustive tests, on the goldens whose chunks are 8 tokens.
class SmallTest : public ReferenceTest {};

// Every offset for two of the goldens, their own for the others.
std::vector<int64_t> OffsetsToTry(const PaperReference& reference) {
  if (reference.name != "paper_tiny" && reference.name != "paper_tiny_mask_offset_share") return {reference.offset};
  std::vector<int64_t> offsets(reference.model->config().chunk_length);
  std::iota(offsets.begin(), offsets.end(), 0);
  return offsets;
}

// A prompt of every length in one piece, then one token at a time.
TEST_P(SmallTest, EveryPromptLengthAndOffset) {
  const ModelConfig& config = reference_.model->config();
  const int64_t n = static_cast<int64_t>(reference_.tokens.size());
  // The first chunk takes a place of its own under an offset: one set of neighbours more than the reference may have.
  std::vector<ChunkNeighbours> neighbours = reference_.neighbours;
  neighbours.push_back(reference_.neighbours[0]);
  double worst = 0;
  for (const int64_t offset : OffsetsToTry(reference_)) {
    const at::Tensor whole = Logits(
        *reference_.model, reference_.tokens,
        std::span(neighbours).first(ChunkGeometry(config.chunk_length, offset).CompleteChunks(n)), {.offset = offset});
    for (int64_t prompt = 1; prompt < n; ++prompt) {
      auto sequence = reference_.model->NewSequence({.offset = offset});
      ASSERT_TRUE(sequence.ok());
      int64_t used = 0;
      for (int64_t begin = 0; begin < n;) {
        const int64_t count = begin == 0 ? prompt : 1;
        const int64_t chunks = (*sequence)->ChunksCompletedBy(count);
        const Piece piece{.sequence = sequence->get(),
                          .tokens = std::span(reference_.tokens).subspan(begin, count),
                          .neighbours = std::span(neighbours).subspan(used, chunks)};
        const auto logits = reference_.model->Forward({&piece, 1});
        ASSERT_TRUE(logits.ok()) << logits.status();
        begin += count;
        used += chunks;
        worst = std::max(worst, Difference(logits->at(0)[0], whole[begin - 1]));
      }
    }
  }
  std::cout << "worst over lengths and offsets: " << worst << "\n";
  EXPECT_LE(worst, kTolerance);
}

// Every offset, and pieces of every size up to three chunks; then a prompt of every length in pieces of random sizes.
TEST_P(SmallTest, PiecesOfEverySizeAtEveryOffset) {
  const int64_t m = reference_.model->config().chunk_length;
  const int64_t n = static_cast<int64_t>(reference_.tokens.size());
  std::vector<ChunkNeighbours> neighbours = reference_.neighbours;
  neighbours.push_back(reference_.neighbours[0]);
  std::mt19937 random(3);
  double worst = 0;
  for (const int64_t offset : OffsetsToTry(reference_)) {
    const RunOptions run{.offset = offset};
    const auto of_first = [&](int64_t tokens) {
      return std::span(neighbours).first(ChunkGeometry(m, offset).CompleteChunks(tokens));
    };
    const at::Tensor whole = Logits(*reference_.model, reference_.tokens, of_first(n), run);
    for (int64_t piece = 1; piece <= 3 * m; ++piece) {
      worst = std::max(worst, Difference(Logits(*reference_.model, reference_.tokens, of_first(n), run, piece), whole));
    }
    for (int64_t prompt = 1; prompt <= std::min(3 * m, n); ++prompt) {
      auto sequence = *reference_.model->NewSequence({.offset = offset});
      for (int64_t begin = 0; begin < prompt;) {
        const int64_t count = std::min<int64_t>(1 + static_cast<int64_t>(random() % 11), prompt - begin);
        const auto before = of_first(begin).size();
        const Piece piece{.sequence = sequence.get(),
                          .tokens = std::span(reference_.tokens).subspan(begin, count),
                          .neighbours = of_first(begin + count).subspan(before),
                          .logit_rows = kAllRows};
        const auto logits = reference_.model->Forward({&piece, 1});
        ASSERT_TRUE(logits.ok()) << logits.status();
        worst = std::max(worst, Difference(logits->at(0), whole.slice(0, begin, begin + count)));
        begin += count;
      }
    }
  }
  std::cout << "worst over pieces and offsets: " << worst << "\n";
  EXPECT_LE(worst, kTolerance);
}

TEST_P(SmallTest, ATokenChangesNothingBeforeIt) {
  const RunOptions run{.offset = reference_.offset};
  const at::Tensor whole = Full(run);
  const TokenId vocabulary = static_cast<TokenId>(reference_.model->config().vocabulary);
  for (size_t j = 0; j < reference_.tokens.size(); ++j) {
    std::vector<TokenId> tokens = reference_.tokens;
    tokens[j] = (tokens[j] + 1) % vocabulary;
    const at::Tensor changed = Logits(*reference_.model, tokens, reference_.neighbours, run);
    const int64_t place = static_cast<int64_t>(j);
    EXPECT_TRUE(at::equal(changed.slice(0, 0, place), whole.slice(0, 0, place))) << j;
    EXPECT_GT(Difference(changed[place], whole[place]), 0) << j;
  }
}

TEST_P(SmallTest, NeighboursServeFromTheLastTokenOfTheirChunk) {
  const RunOptions run{.offset = reference_.offset};
  const ModelConfig& config = reference_.model->config();
  const ChunkGeometry geometry(config.chunk_length, reference_.offset);
  const at::Tensor whole = Full(run);
  for (size_t u = 0; u < reference_.neighbours.size(); ++u) {
    std::vector<ChunkNeighbours> neighbours = reference_.neighbours;
    for (TokenId& id : neighbours[u].tokens) {
      if (id != config.pad_id) id = id % (static_cast<TokenId>(config.vocabulary) - 1) + 1;
    }
    if (neighbours[u].tokens == reference_.neighbours[u].tokens) continue;  // a chunk with pad only
    const at::Tensor changed = Logits(*reference_.model, reference_.tokens, neighbours, run);
    const int64_t last = geometry.End(static_cast<int64_t>(u)) - 1;
    EXPECT_TRUE(at::equal(changed.slice(0, 0, last), whole.slice(0, 0, last))) << u;
    const int64_t end = std::min(last + config.chunk_length, changed.size(0));
    for (int64_t t = last; t < end; ++t) EXPECT_GT(Difference(changed[t], whole[t]), 0) << u << " " << t;
  }
}

TEST_P(SmallTest, TheOrderOfNeighboursDoesNotMatter) {
  const int64_t r = reference_.model->config().neighbour_length;
  std::vector<ChunkNeighbours> reversed = reference_.neighbours;
  for (ChunkNeighbours& chunk : reversed) {
    std::vector<TokenId> tokens;
    for (int64_t j = chunk.count - 1; j >= 0; --j) {
      tokens.insert(tokens.end(), chunk.tokens.begin() + j * r, chunk.tokens.begin() + (j + 1) * r);
    }
    chunk.tokens = tokens;
  }
  const RunOptions run{.offset = reference_.offset};
  const at::Tensor logits = Logits(*reference_.model, reference_.tokens, reversed, run);
  EXPECT_LE(MaxDifference("reversed", logits, Full(run)), kTolerance);
}

// k differs from chunk to chunk: the full forward batches them, the reference is one token at a time.
TEST_P(SmallTest, ChunksWithDifferentNumbersOfNeighbours) {
  const int64_t r = reference_.model->config().neighbour_length;
  std::vector<ChunkNeighbours> neighbours = reference_.neighbours;
  for (size_t u = 0; u < neighbours.size(); ++u) {
    neighbours[u].count = static_cast<int64_t>(u % 3) % (neighbours[u].count + 1);
    neighbours[u].tokens.resize(neighbours[u].count * r);
  }
  const RunOptions run{.offset = reference_.offset};
  const at::Tensor whole = Logits(*reference_.model, reference_.tokens, neighbours, run);
  EXPECT_LE(MaxDifference("one by one", Logits(*reference_.model, reference_.tokens, neighbours, run, 1), whole),
            kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Goldens, SmallTest,
                         ::testing::Values("paper_tiny", "paper_tiny_mask", "paper_tiny_offset", "paper_tiny_variant",
                                           "paper_tiny_shared_relu", "paper_tiny_ragged",
                                           "paper_tiny_mask_offset_share"),
                         [](const auto& info) { return info.param; });

class ModelTest : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  PaperReference tiny_ = LoadPaperReference("paper_tiny");
};

TEST_F(ModelTest, SequencesInOneBatchAreIndependent) {
  const RetroModel& model = *tiny_.model;
  const std::vector<int64_t> lengths = {1, 8, 13, 30};
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < lengths.size(); ++i) {
    sequences.push_back(*model.NewSequence({.offset = static_cast<int64_t>(i), .retrieval = i != 2}));
    const int64_t chunks = i == 2 ? 0 : sequences[i]->ChunksCompletedBy(lengths[i]);
    pieces.push_back({.sequence = sequences[i].get(),
                      .tokens = std::span(tiny_.tokens).first(lengths[i]),
                      .neighbours = std::span(tiny_.neighbours).first(chunks),
                      .logit_rows = kAllRows});
  }
  const auto together = model.Forward(pieces);
  ASSERT_TRUE(together.ok()) << together.status();
  for (size_t i = 0; i < lengths.size(); ++i) {
    const at::Tensor alone =
        Logits(model, pieces[i].tokens, pieces[i].neighbours, {.offset = static_cast<int64_t>(i), .retrieval = i != 2});
    EXPECT_LE(Difference(together->at(i), alone), kTolerance) << i;
  }
}

TEST_F(ModelTest, LogitsOfTheLastRowsAreThoseOfAll) {
  const std::span<const TokenId> tokens = std::span(tiny_.tokens).first(7);
  const at::Tensor all = Logits(*tiny_.model, tokens, {}, {});
  for (const int64_t rows : {0, 1, 3, 6, 7, 8}) {
    const auto sequence = *tiny_.model->NewSequence({});
    const Piece piece{.sequence = sequence.get(), .tokens = tokens, .logit_rows = rows};
    const auto last = tiny_.model->Forward({&piece, 1});
    ASSERT_TRUE(last.ok()) << last.status();
    if (rows == 0) {
      EXPECT_FALSE(last->at(0).defined());
    } else {
      const int64_t given = std::min<int64_t>(rows, 7);
      ASSERT_EQ(last->at(0).size(0), given);
      // CUDA has other kernels for other numbers of rows.
      EXPECT_LE(Difference(last->at(0), all.narrow(0, 7 - given, given)), kTolerance) << rows;
    }
  }
}

TEST_F(ModelTest, AttentionMassIsSharedOutAmongTheNeighboursGiven) {
  const PaperReference mask = LoadPaperReference("paper_tiny_mask");
  auto sequence = *mask.model->NewSequence({});
  const Piece piece{
      .sequence = sequence.get(), .tokens = mask.tokens, .neighbours = mask.neighbours, .want_mass = true};
  ASSERT_TRUE(mask.model->Forward({&piece, 1}).ok());
  const auto& mass = sequence->attention_mass();
  ASSERT_EQ(mass.size(), mask.tokens.size());
  for (size_t t = 0; t < mass.size(); ++t) {
    const int64_t chunk = sequence->geometry().AttendedChunk(static_cast<int64_t>(t));
    if (chunk < 0 || chunk == 2) {  // before the first neighbours; a chunk with pad only
      EXPECT_TRUE(mass[t].empty()) << t;
      continue;
    }
    ASSERT_EQ(mass[t].size(), 3u) << t;
    EXPECT_NEAR(std::accumulate(mass[t].begin(), mass[t].end(), 0.0), 1.0, 1e-5) << t;
    EXPECT_EQ(mass[t][2] == 0.0f, chunk == 1) << t;  // there the last neighbour does not exist
  }
}

// Longer than one block of queries, whose borders the pieces do not share.
TEST_F(ModelTest, LongPrefillEqualsPieces) {
  constexpr int64_t kLength = 700;
  constexpr uint64_t kSeed = 5;
  ModelConfig config = tiny_.model->config();
  config.max_length = kLength;
  config.mask_pad = true;
  const auto model = *RetroModel::Create(config, *RandomWeights(config, kSeed), TestDevice());
  std::vector<TokenId> tokens(kLength);
  for (int64_t i = 0; i < kLength; ++i) tokens[i] = static_cast<TokenId>(i * i % 61);
  std::vector<ChunkNeighbours> neighbours(kLength / config.chunk_length);
  for (size_t u = 0; u < neighbours.size(); ++u) {
    neighbours[u].count = static_cast<int64_t>(u % 3);
    neighbours[u].tokens.assign(neighbours[u].count * config.neighbour_length, static_cast<TokenId>(u % 60 + 1));
  }
  const at::Tensor whole = Logits(*model, tokens, neighbours, {});
  for (const int64_t piece : {90, 300}) {
    EXPECT_LE(MaxDifference("pieces of " + std::to_string(piece), Logits(*model, tokens, neighbours, {}, piece), whole),
              kTolerance);
  }
}

TEST_F(ModelTest, RefusedPiecesLeaveTheSequenceAsItWas) {
  const RetroModel& model = *tiny_.model;
  auto sequence = *model.NewSequence({});
  const std::vector<TokenId> tokens(tiny_.tokens.begin(), tiny_.tokens.begin() + 8);
  const std::vector<TokenId> foreign = {61};
  const std::vector<TokenId> many(33, 1);
  std::vector<ChunkNeighbours> short_neighbours = {{2, std::vector<TokenId>(31, 1)}};
  const std::vector<Piece> bad = {
      {.sequence = sequence.get()},
      {.sequence = sequence.get(), .tokens = foreign},
      {.sequence = sequence.get(), .tokens = many, .neighbours = tiny_.neighbours},
      {.sequence = sequence.get(), .tokens = tokens},  // completes a chunk, brings no neighbours
      {.sequence = sequence.get(), .tokens = tokens, .neighbours = short_neighbours},
      {.tokens = tokens}};
  for (const Piece& piece : bad) {
    EXPECT_EQ(model.Forward({&piece, 1}).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(sequence->position(), 0);
  }
  const std::vector<Piece> twice(2, {.sequence = sequence.get(), .tokens = std::span(tokens).first(3)});
  EXPECT_EQ(model.Forward(twice).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model.NewSequence({.offset = 8}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model.NewSequence({.gate = 0.0 / 0.0}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace retro
