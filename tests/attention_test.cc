#include "generator_service/model/attention.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace retro {
namespace {

constexpr int64_t kBatch = 16, kHeads = 4, kQueries = 2, kKeys = 64, kHeadSize = 16;
constexpr int64_t kTableBytes = kHeads * (kQueries + kKeys) * kHeadSize * static_cast<int64_t>(sizeof(float));

// What torch has allocated and not given back on this thread since `Held` was made.
class Held : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*memory*/, int64_t bytes, size_t /*allocated*/, size_t /*reserved*/,
                         c10::Device /*device*/) override {
    bytes_ += bytes;
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

AttentionWeights RandomTransformerXl() {
  AttentionWeights weights;
  weights.heads = kHeads;
  weights.scale = 0.25;
  weights.content_bias = at::randn({kHeads, 1, kHeadSize}).set_requires_grad(true);
  weights.position_bias = at::randn({kHeads, 1, kHeadSize}).set_requires_grad(true);
  weights.positions = at::randn({kHeads, kQueries + kKeys, kHeadSize}).set_requires_grad(true);
  weights.largest_distance = kQueries - 1;
  return weights;
}

AttentionInput RandomInput() {
  const auto random = [](int64_t rows) { return at::randn({kBatch, kHeads, rows, kHeadSize}); };
  return {.query = SplitHeads(at::randn({kBatch, kQueries, kHeads * kHeadSize}), kHeads).set_requires_grad(true),
          .key = random(kKeys).set_requires_grad(true),
          .value = random(kKeys).set_requires_grad(true)};
}

TEST(AttentionTest, TheTableOfPositionsIsNotCopiedForEveryRowOfABatch) {
  at::manual_seed(1);
  const AttentionWeights weights = RandomTransformerXl();
  const AttentionInput input = RandomInput();
  const auto held = std::make_shared<Held>();
  const c10::DebugInfoGuard counts(c10::DebugInfoKind::PROFILER_STATE, held);
  const at::Tensor attended = RelativeAttention(weights, input);
  EXPECT_GT(held->bytes(), static_cast<int64_t>(attended.nbytes()));  // it does count
  EXPECT_LT(held->bytes(), kBatch * kTableBytes / 2);
}

TEST(AttentionTest, ABatchGivesWhatItsRowsGive) {
  at::manual_seed(2);
  const AttentionWeights weights = RandomTransformerXl();
  const AttentionInput input = RandomInput();
  const std::vector<at::Tensor> leaves = {
      weights.content_bias, weights.position_bias, weights.positions, input.query, input.key, input.value};
  const auto take_gradients = [&leaves] {
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& leaf : leaves) {
      gradients.push_back(leaf.grad().clone());
      leaf.mutable_grad().reset();
    }
    return gradients;
  };
  const at::Tensor direction = at::randn({kBatch, kHeads, kQueries, kHeadSize});
  const at::Tensor together = RelativeAttention(weights, input);
  (together * direction).sum().backward();
  const std::vector<at::Tensor> gradients = take_gradients();
  for (int64_t b = 0; b < kBatch; ++b) {
    AttentionInput row = input;
    for (at::Tensor* part : {&row.query, &row.key, &row.value}) *part = part->narrow(0, b, 1);
    const at::Tensor alone = RelativeAttention(weights, row);
    EXPECT_TRUE(at::allclose(alone, together.narrow(0, b, 1), 1e-5, 1e-5)) << b;
    (alone * direction.narrow(0, b, 1)).sum().backward();
  }
  const std::vector<at::Tensor> summed = take_gradients();
  for (size_t i = 0; i < leaves.size(); ++i) EXPECT_TRUE(at::allclose(gradients[i], summed[i], 1e-4, 1e-4)) << i;
}

}  // namespace
}  // namespace retro
