// The reference at the size of the paper's smallest model: logits the same to the bit alone and in a batch.
#include <ATen/Parallel.h>

#include "generator_service/checkpoints/random_init.h"
#include "generator_service/model/config.h"
#include "generator_service/model/model.h"
#include "gtest/gtest.h"
#include "tests/company.h"

namespace retro {
namespace {

constexpr uint64_t kSeed = 3;

TEST(Reference172mTest, AloneAsInABatch) {
  at::set_num_threads(2);
  const ModelConfig config = *PresetModelConfig("retro-172m");
  const auto model = *RetroModel::Create(config, *RandomWeights(config, kSeed), "cpu");
  ExpectTheSameAloneAndTogether(*model, 5, 150);
}

}  // namespace
}  // namespace retro
