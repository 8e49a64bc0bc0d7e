// BERT on CPU threads (Devlin et al. 2019, section 3; post-norm layers of Vaswani et al. 2017). Texts are never padded:
// the rows of a block are the tokens of its texts one after the other, and attention takes text by text.
//
// The matrices are cut into shares, one for each of a few workers: a worker's share of the heads with the matching rows
// of Q, K, V and columns of the output projection, and a share of the intermediate neurons likewise (Shoeybi et al.
// 2019, section 3). So there are two ways to use a team, with the same weights:
//   many texts  each worker takes blocks of texts and goes through all shares; nobody waits for anybody
//   few texts   all workers hold the same rows, each does its share, and two barriers a layer pass the partial sums on
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "retriever_service/embed/attention_kernel.h"
#include "retriever_service/embed/bert_config.h"
#include "retriever_service/embed/bert_forward.h"
#include "retriever_service/embed/bert_weights.h"
#include "retriever_service/embed/packed_linear.h"
#include "retriever_service/embed/worker_team.h"

namespace retro {

class BertCpu : public BertForward {
 public:
  // Throws c10::Error, std::bad_alloc.
  BertCpu(const BertConfig& config, BertWeights weights, WeightFormat format, int threads);

  void Run(std::span<const std::span<const TokenId>> sequences, float* out) override;

 private:
  struct Share {  // of one layer
    PackedLinear qkv, attention_output, intermediate, output;
    std::vector<float> qkv_bias, intermediate_bias;
    int width;  // of its heads together
  };
  struct Layer {
    std::vector<Share> shares;
    std::vector<float> attention_bias, output_bias;
    NormWeights attention_norm, output_norm;
  };
  struct Block;
  struct Team;
  class Pass;

  Share MakeShare(const BertLayerWeights& layer, int share, WeightFormat format) const;
  std::vector<Block> CutIntoBlocks(std::span<const std::span<const TokenId>> sequences, int64_t block_tokens,
                                   float* out) const;

  const BertConfig config_;
  const int threads_;
  const int share_count_;
  std::vector<float> words_, positions_, type_;  // type_: the row of type 0, the only one that a single text uses
  NormWeights embedding_norm_;
  std::vector<Layer> layers_;
};

}  // namespace retro
