#include "tests/tiny_model.h"

#include <ATen/ATen.h>

#include "generator_service/checkpoints/random_init.h"
#include "tests/test_paths.h"

namespace retro {

std::unique_ptr<RetroModel> MakeTinyModel(uint64_t seed, int64_t max_length) {
  ModelConfig config;
  config.width = 24;
  config.ffw_width = 48;
  config.heads = 2;
  config.head_size = 12;
  config.layers = 3;
  config.cca_layers = {2, 3};
  config.encoder_width = 16;
  config.encoder_ffw_width = 32;
  config.encoder_heads = 2;
  config.encoder_head_size = 8;
  config.encoder_layers = 1;
  config.encoder_cca_layers = {1};
  config.vocabulary = 260;
  config.chunk_length = 8;
  config.neighbour_length = 16;
  config.max_length = max_length;
  config.mask_pad = true;
  auto weights = RandomWeights(config, seed);
  EXPECT_TRUE(weights.ok()) << weights.status();
  // As initialised a model says nearly the same whatever it is told: larger weights make contexts and neighbours
  // matter.
  for (auto& [name, tensor] : *weights) {
    if (tensor.dim() == 2) tensor = tensor * (name.find("embedding") != std::string::npos ? 60 : 3);
  }
  auto model = RetroModel::Create(config, *weights, TestDevice());
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

}  // namespace retro
