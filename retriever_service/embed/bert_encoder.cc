#include "retriever_service/embed/bert_encoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <thread>

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/device.h"
#include "common/torch/torch_status.h"
#include "retriever_service/embed/bert_cpu.h"
#include "retriever_service/embed/bert_device.h"
#include "retriever_service/embed/bert_weights.h"

namespace retro {
namespace {

constexpr int kThreadsMax = 256;

absl::StatusOr<int> ChooseThreads(int asked) {
  if (asked < 0 || asked > kThreadsMax) {
    return absl::InvalidArgumentError(StrCat("embedder threads must be 0 to ", kThreadsMax, ", not ", asked));
  }
  if (asked > 0) return asked;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kThreadsMax);
}

absl::Status OverrideMaxTokens(int max_tokens, BertConfig& config) {
  if (max_tokens == 0) return absl::OkStatus();
  if (max_tokens < 2 || max_tokens > config.max_positions) {
    return absl::InvalidArgumentError(StrCat("the embedder's maximal length must be 2 to ", config.max_positions,
                                             " tokens for ", config.folder, ", not ", max_tokens));
  }
  config.max_tokens = max_tokens;
  return absl::OkStatus();
}

absl::StatusOr<std::string> Fingerprint(const BertConfig& config, const std::string& tokenizer_fingerprint) {
  RETRO_ASSIGN_OR_RETURN(const MappedFile weights, MappedFile::Open(config.weights_path()));
  Sha256 hash;
  hash.UpdateField("retro bert embedder 1");
  hash.UpdateField(weights.bytes());
  hash.UpdateField(tokenizer_fingerprint);
  hash.UpdateField(StrCat("heads=", config.heads, " activation=", static_cast<int>(config.activation),
                          " epsilon=", config.norm_epsilon, " pooling=", static_cast<int>(config.pooling),
                          " normalise=", config.normalise, " max_tokens=", config.max_tokens));
  hash.UpdateField(config.query_prefix);
  hash.UpdateField(config.passage_prefix);
  return hash.Finish();
}

absl::StatusOr<std::unique_ptr<BertForward>> MakeForward(const BertConfig& config, BertWeights weights,
                                                         const BertEncoderOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const at::Device device, OpenDevice(options.device));
  RETRO_ASSIGN_OR_RETURN(const int threads, ChooseThreads(options.threads));
  const bool half = options.numbers == BertNumbers::kFp16;
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<BertForward>> {
    if (!device.is_cpu()) return std::make_unique<BertDevice>(config, weights, device, half);
    if (options.plain_operators) return std::make_unique<BertDevice>(config, weights, device, /*half=*/false);
    const WeightFormat format = half ? WeightFormat::kFp16Packed : WeightFormat::kFp32;
    return std::make_unique<BertCpu>(config, std::move(weights), format, threads);
  });
}

}  // namespace

struct BertEncoder::State {
  BertConfig config;
  std::string fingerprint;
  std::unique_ptr<BertForward> forward;
};

BertEncoder::BertEncoder(std::unique_ptr<State> state) : state_(std::move(state)) {}
BertEncoder::~BertEncoder() = default;

const BertConfig& BertEncoder::config() const { return state_->config; }
const std::string& BertEncoder::fingerprint() const { return state_->fingerprint; }

absl::StatusOr<std::unique_ptr<BertEncoder>> BertEncoder::Load(const std::string& folder,
                                                               const std::string& tokenizer_fingerprint,
                                                               const BertEncoderOptions& options) {
  auto state = std::make_unique<State>();
  RETRO_ASSIGN_OR_RETURN(state->config, ReadBertConfig(folder));
  RETRO_RETURN_IF_ERROR(OverrideMaxTokens(options.max_tokens, state->config));
  RETRO_ASSIGN_OR_RETURN(BertWeights weights, ReadBertWeights(state->config));
  RETRO_ASSIGN_OR_RETURN(state->fingerprint, Fingerprint(state->config, tokenizer_fingerprint));
  RETRO_ASSIGN_OR_RETURN(state->forward, MakeForward(state->config, std::move(weights), options));
  return std::unique_ptr<BertEncoder>(new BertEncoder(std::move(state)));
}

absl::StatusOr<std::vector<float>> BertEncoder::Encode(std::span<const TokenSequence> sequences) {
  const BertConfig& config = state_->config;
  std::vector<std::span<const TokenId>> spans;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const TokenSequence& sequence = sequences[i];
    if (sequence.empty() || sequence.size() > static_cast<size_t>(config.max_tokens)) {
      return absl::InvalidArgumentError(
          StrCat("text ", i, " has ", sequence.size(), " tokens, the embedder takes 1 to ", config.max_tokens));
    }
    for (const TokenId id : sequence) {
      if (id < 0 || id >= config.vocabulary_size) {
        return absl::InvalidArgumentError(
            StrCat("text ", i, " has token ", id, ", the embedder's vocabulary ends at ", config.vocabulary_size - 1));
      }
    }
    spans.push_back(sequence);
  }
  std::vector<float> vectors(sequences.size() * config.hidden_size);
  if (spans.empty()) return vectors;
  RETRO_RETURN_IF_ERROR(CatchTorch([&] {
    state_->forward->Run(spans, vectors.data());
    return absl::OkStatus();
  }));
  return vectors;
}

}  // namespace retro
