// The shipped demo model, on a fixed text: what number formats cost a trained model, and that it reads its neighbours.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/model/model.h"
#include "gtest/gtest.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

// Lincoln, Gettysburg, 1863.
constexpr char kText[] =
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, "
    "and "
    "dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war, testing "
    "whether that nation, or any nation so conceived and so dedicated, can long endure. We are met on a great "
    "battle-field of that war. We have come to dedicate a portion of that field, as a final resting place for those "
    "who "
    "here gave their lives that that nation might live. It is altogether fitting and proper that we should do this. "
    "But, "
    "in a larger sense, we can not dedicate -- we can not consecrate -- we can not hallow -- this ground. The brave "
    "men, "
    "living and dead, who struggled here, have consecrated it, far above our poor power to add or detract. The world "
    "will "
    "little note, nor long remember what we say here, but it can never forget what they did here. It is for us the "
    "living, rather, to be dedicated here to the unfinished work which they who fought here have thus far so nobly "
    "advanced. It is rather for us to be here dedicated to the great task remaining before us -- that from these "
    "honored "
    "dead we take increased devotion to that cause for which they gave the last full measure of devotion.";

constexpr int64_t kShift = 10;  // of the copy's chunks against the text's

class DemoModelTest : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(2);
    const std::string folder = EnvironmentOr("RETRO_DEMO_MODEL", "build/release/demo-model");
    info_ = *ReadCheckpointInfo(folder);
    weights_ = *ReadCheckpointWeights(folder, info_);
    const auto tokenizer = *LoadTokenizer(folder + "/" + info_.tokenizer_file);
    for (const Token& token : tokenizer->Encode(kText)) tokens_.push_back(token.id);
  }

  // Log-probabilities of the tokens from the second chunk on, where neighbours have a say. `copy_of`: the text that is
  // in the store, in chunks that begin elsewhere; empty: no retrieval.
  at::Tensor LogProbabilities(ModelNumbers numbers, const std::vector<TokenId>& copy_of) const {
    const auto model = *RetroModel::Create(info_.config, weights_, "cpu", {.numbers = numbers});
    const auto sequence = *model->NewSequence({.retrieval = !copy_of.empty()});
    const auto n = static_cast<int64_t>(tokens_.size());
    const int64_t m = info_.config.chunk_length;
    std::vector<ChunkNeighbours> neighbours;
    for (int64_t u = 0; !copy_of.empty() && u < n / m; ++u) neighbours.push_back(NeighboursOf(copy_of, u));
    const Piece all{.sequence = sequence.get(), .tokens = tokens_, .neighbours = neighbours, .logit_rows = kAllRows};
    const at::Tensor logits = model->Forward({&all, 1})->at(0).to(at::kDouble);
    const at::Tensor next = at::tensor(std::vector<int64_t>(tokens_.begin() + m, tokens_.end())).unsqueeze(1);
    return logits.narrow(0, m - 1, n - m).log_softmax(1).gather(1, next).squeeze(1);
  }

  ChunkNeighbours NeighboursOf(const std::vector<TokenId>& text, int64_t chunk) const {
    const auto begin = static_cast<size_t>(std::max<int64_t>(chunk * info_.config.chunk_length - kShift, 0));
    const auto length = static_cast<size_t>(info_.config.neighbour_length);
    std::vector<TokenId> found(text.begin() + begin, text.begin() + std::min(begin + length, text.size()));
    found.resize(length, static_cast<TokenId>(info_.config.pad_id));
    return {.count = 1, .tokens = std::move(found)};
  }

  CheckpointInfo info_;
  std::map<std::string, at::Tensor> weights_;
  std::vector<TokenId> tokens_;
};

TEST_F(DemoModelTest, NumberFormatsStayNearFp32) {
  for (const std::vector<TokenId>& copy_of : {std::vector<TokenId>(), tokens_}) {
    const at::Tensor exact = LogProbabilities(ModelNumbers::kFp32, copy_of);
    for (const auto& [numbers, bound] : {std::pair{ModelNumbers::kFp16, 0.001}, std::pair{ModelNumbers::kInt8, 0.02}}) {
      const double mean = (LogProbabilities(numbers, copy_of) - exact).abs().mean().item<double>();
      std::cout << ModelNumbersName(numbers) << (copy_of.empty() ? " without" : " with")
                << " neighbours: mean |difference of log-probability| " << mean << " nats\n";
      EXPECT_LE(mean, bound) << ModelNumbersName(numbers);
    }
  }
}

TEST_F(DemoModelTest, ReadsItsNeighbours) {
  const double without = -LogProbabilities(ModelNumbers::kFp32, {}).mean().item<double>();
  const double with_copy = -LogProbabilities(ModelNumbers::kFp32, tokens_).mean().item<double>();
  std::vector<TokenId> other(tokens_.rbegin(), tokens_.rend());
  const double with_other = -LogProbabilities(ModelNumbers::kFp32, other).mean().item<double>();
  std::cout << "nats a token: " << without << " alone, " << with_copy << " with a copy, " << with_other
            << " with the text backwards\n";
  EXPECT_LT(with_copy, 0.3 * without);
  EXPECT_LT(with_other, 1.1 * without);
}

}  // namespace
}  // namespace retro
