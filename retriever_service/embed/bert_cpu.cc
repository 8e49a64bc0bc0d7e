#include "retriever_service/embed/bert_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <exception>

#include "common/base/sync.h"
#include "retriever_service/embed/bert_kernels.h"

namespace retro {
namespace {

// More shares would make the products of a small model too thin to be fast.
constexpr int kSharesMax = 4;
// A block takes texts until it has this many tokens: fewer rows leave the matrix kernels half idle, more do not make
// them faster.
constexpr int64_t kBlockTokens = 64;
// Of a block that all workers share, where more rows make the barriers rarer.
constexpr int64_t kSharedBlockTokens = 512;
// Workers that take blocks in turn wait for the last of them. A larger share of their time than 1 / this is worth the
// barriers of shared blocks.
constexpr int64_t kIdleShareMax = 6;

// Whether `workers` that take `blocks` blocks in turn are busy to the end.
bool TurnsFillTheTeam(int64_t blocks, int64_t workers) {
  const int64_t rounds = (blocks + workers - 1) / workers;
  return (rounds * workers - blocks) * kIdleShareMax <= rounds * workers;
}

// Rows [begin, end) of each matrix [size, columns], one below the other.
at::Tensor StackRows(std::initializer_list<const LinearWeights*> parts, int64_t columns, int begin, int end) {
  at::Tensor stacked = at::empty({static_cast<int64_t>(parts.size()) * (end - begin), columns}, at::kFloat);
  float* to = stacked.data_ptr<float>();
  for (const LinearWeights* part : parts)
    to = std::copy_n(part->weight.data() + begin * columns, (end - begin) * columns, to);
  return stacked;
}

std::vector<float> StackBias(std::initializer_list<const LinearWeights*> parts, int begin, int end) {
  std::vector<float> stacked;
  for (const LinearWeights* part : parts)
    stacked.insert(stacked.end(), part->bias.begin() + begin, part->bias.begin() + end);
  return stacked;
}

// Columns [begin, end) of a matrix [rows, columns].
at::Tensor TakeColumns(const LinearWeights& linear, int64_t rows, int64_t columns, int begin, int end) {
  at::Tensor taken = at::empty({rows, end - begin}, at::kFloat);
  float* to = taken.data_ptr<float>();
  for (int64_t r = 0; r < rows; ++r) to = std::copy_n(linear.weight.data() + r * columns + begin, end - begin, to);
  return taken;
}

// Where share `share` of `count` begins among `size` things.
int ShareBegin(int size, int share, int count) { return static_cast<int>(static_cast<int64_t>(size) * share / count); }

}  // namespace

// Texts whose tokens lie one after the other.
struct BertCpu::Block {
  std::vector<std::span<const TokenId>> texts;
  std::vector<float*> out;  // one for each text
  int64_t tokens = 0;
};

// What the workers of one Run share.
struct BertCpu::Team {
  explicit Team(int shares) : attention_parts(shares), output_parts(shares) {}

  TeamBarrier barrier;
  // The partial sums of each share, written by its worker before a barrier and read by all after it. Two sets: between
  // reading one and writing it again lies the other's barrier.
  std::vector<at::Tensor> attention_parts, output_parts;

  Mutex mutex;
  std::exception_ptr error ABSL_GUARDED_BY(mutex);
};

// One worker's way through one block.
class BertCpu::Pass {
 public:
  // The worker does shares worker, worker + size, ... of `size` workers that meet at team's barrier; size 1: all.
  Pass(const BertCpu& model, Team& team, int worker, int size)
      : model_(model), team_(team), worker_(worker), size_(size), attention_(model.config_.head_size()) {}

  // False if another worker has failed.
  bool Run(const Block& block) {
    block_ = &block;
    x_ = at::empty({block.tokens, model_.config_.hidden_size}, at::kFloat);
    EmbedTokens();
    for (const Layer& layer : model_.layers_) {
      if (!RunLayer(layer)) return false;
    }
    if (worker_ == 0) PoolTexts();
    return true;
  }

 private:
  int rows() const { return static_cast<int>(block_->tokens); }

  void EmbedTokens() {
    const int64_t hidden = model_.config_.hidden_size;
    float* row = x_.data_ptr<float>();
    for (const auto text : block_->texts) {
      for (size_t t = 0; t < text.size(); ++t, row += hidden) {
        const float* word = model_.words_.data() + text[t] * hidden;
        const float* position = model_.positions_.data() + static_cast<int64_t>(t) * hidden;
        for (int64_t i = 0; i < hidden; ++i) row[i] = word[i] + position[i];
      }
    }
    AddAndNormalise(rows(), x_.data_ptr<float>(), {}, model_.type_, model_.embedding_norm_,
                    model_.config_.norm_epsilon);
  }

  bool RunLayer(const Layer& layer) {
    for (size_t s = worker_; s < layer.shares.size(); s += size_) Attend(layer.shares[s], team_.attention_parts[s]);
    if (!Join(team_.attention_parts, layer.attention_bias, layer.attention_norm)) return false;
    for (size_t s = worker_; s < layer.shares.size(); s += size_) {
      const Share& share = layer.shares[s];
      const at::Tensor inner = share.intermediate.Apply(x_);
      AddBiasAndActivate(rows(), inner.data_ptr<float>(), share.intermediate_bias, model_.config_.activation);
      team_.output_parts[s] = share.output.Apply(inner);
    }
    return Join(team_.output_parts, layer.output_bias, layer.output_norm);
  }

  void Attend(const Share& share, at::Tensor& part) {
    const at::Tensor qkv = share.qkv.Apply(x_);
    const at::Tensor context = at::empty({block_->tokens, share.width}, at::kFloat);
    int64_t row = 0;
    for (const auto text : block_->texts) {
      attention_.Run(static_cast<int>(text.size()), share.width, qkv.data_ptr<float>() + row * 3 * share.width,
                     share.qkv_bias, context.data_ptr<float>() + row * share.width);
      row += static_cast<int64_t>(text.size());
    }
    part = share.attention_output.Apply(context);
  }

  // x = norm(x + all shares' parts + bias); every worker keeps its own x.
  bool Join(const std::vector<at::Tensor>& parts, std::span<const float> bias, const NormWeights& norm) {
    if (size_ > 1 && !team_.barrier.Wait(size_)) return false;
    std::vector<const float*> pointers;
    pointers.reserve(parts.size());
    for (const at::Tensor& part : parts) pointers.push_back(part.data_ptr<float>());
    AddAndNormalise(rows(), x_.data_ptr<float>(), pointers, bias, norm, model_.config_.norm_epsilon);
    return true;
  }

  void PoolTexts() const {
    const int hidden = model_.config_.hidden_size;
    const float* row = x_.data_ptr<float>();
    for (size_t i = 0; i < block_->texts.size(); ++i) {
      const int tokens = static_cast<int>(block_->texts[i].size());
      Pool(tokens, hidden, row, model_.config_.pooling, block_->out[i]);
      if (model_.config_.normalise) NormaliseVector({block_->out[i], static_cast<size_t>(hidden)});
      row += static_cast<int64_t>(tokens) * hidden;
    }
  }

  const BertCpu& model_;
  Team& team_;
  const int worker_;
  const int size_;
  AttentionKernel attention_;
  const Block* block_ = nullptr;
  at::Tensor x_;  // [tokens, hidden]
};

BertCpu::BertCpu(const BertConfig& config, BertWeights weights, WeightFormat format, int threads)
    : config_(config),
      threads_(threads),
      share_count_(std::min({threads, config.heads, config.intermediate_size, kSharesMax})),
      words_(std::move(weights.words)),
      positions_(std::move(weights.positions)),
      type_(weights.types.begin(), weights.types.begin() + config.hidden_size),
      embedding_norm_(std::move(weights.norm)) {
  const c10::InferenceMode inference;
  for (BertLayerWeights& from : weights.layers) {
    Layer& layer = layers_.emplace_back();
    for (int s = 0; s < share_count_; ++s) layer.shares.push_back(MakeShare(from, s, format));
    layer.attention_bias = std::move(from.attention_output.bias);
    layer.output_bias = std::move(from.output.bias);
    layer.attention_norm = std::move(from.attention_norm);
    layer.output_norm = std::move(from.output_norm);
    from = {};  // packed now: the plain copy's memory is wanted for the next
  }
}

BertCpu::Share BertCpu::MakeShare(const BertLayerWeights& layer, int share, WeightFormat format) const {
  const int hidden = config_.hidden_size;
  const int begin = ShareBegin(config_.heads, share, share_count_) * config_.head_size();
  const int end = ShareBegin(config_.heads, share + 1, share_count_) * config_.head_size();
  const int inner_begin = ShareBegin(config_.intermediate_size, share, share_count_);
  const int inner_end = ShareBegin(config_.intermediate_size, share + 1, share_count_);
  const auto qkv = {&layer.query, &layer.key, &layer.value};
  return {.qkv = PackedLinear(StackRows(qkv, hidden, begin, end), format),
          .attention_output = PackedLinear(TakeColumns(layer.attention_output, hidden, hidden, begin, end), format),
          .intermediate = PackedLinear(StackRows({&layer.intermediate}, hidden, inner_begin, inner_end), format),
          .output = PackedLinear(TakeColumns(layer.output, hidden, config_.intermediate_size, inner_begin, inner_end),
                                 format),
          .qkv_bias = StackBias(qkv, begin, end),
          .intermediate_bias = StackBias({&layer.intermediate}, inner_begin, inner_end),
          .width = end - begin};
}

std::vector<BertCpu::Block> BertCpu::CutIntoBlocks(std::span<const std::span<const TokenId>> sequences,
                                                   int64_t block_tokens, float* out) const {
  std::vector<Block> blocks;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (blocks.empty() || blocks.back().tokens >= block_tokens) blocks.emplace_back();
    Block& block = blocks.back();
    block.texts.push_back(sequences[i]);
    block.out.push_back(out + i * config_.hidden_size);
    block.tokens += static_cast<int64_t>(sequences[i].size());
  }
  return blocks;
}

void BertCpu::Run(std::span<const std::span<const TokenId>> sequences, float* out) {
  at::init_num_threads();  // before the team: the library's first call on a thread would undo the team's settings
  std::vector<Block> blocks = CutIntoBlocks(sequences, kBlockTokens, out);
  const bool apart = TurnsFillTheTeam(static_cast<int64_t>(blocks.size()), threads_);
  if (!apart) blocks = CutIntoBlocks(sequences, kSharedBlockTokens, out);
  Team shared(share_count_);
  std::atomic<size_t> next = 0;
  RunTeam(apart ? threads_ : share_count_, [&](int worker, int size) {
    const c10::InferenceMode inference;
    try {
      if (apart) {
        Team alone(share_count_);
        Pass pass(*this, alone, /*worker=*/0, /*size=*/1);
        for (size_t i = next++; i < blocks.size(); i = next++) pass.Run(blocks[i]);
      } else {
        Pass pass(*this, shared, worker, size);
        for (const Block& block : blocks) {
          if (!pass.Run(block)) return;
        }
      }
    } catch (...) {
      MutexLock lock(shared.mutex);
      shared.error = std::current_exception();
      shared.barrier.Abort();
    }
  });
  MutexLock lock(shared.mutex);
  if (shared.error) std::rethrow_exception(shared.error);
}

}  // namespace retro
