#include "retriever_service/embed/bert_encoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <exception>
#include <new>
#include <thread>

#include "absl/strings/numbers.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/embed/bert_cpu.h"
#include "retriever_service/embed/bert_device.h"
#include "retriever_service/embed/bert_weights.h"

namespace retro {
namespace {

constexpr int kThreadsMax = 256;

struct DeviceChoice {
  bool cuda = false;
  int index = 0;
};

absl::StatusOr<DeviceChoice> ParseDevice(const std::string& name) {
  if (name == "cpu") return DeviceChoice{};
  if (name == "cuda") return DeviceChoice{.cuda = true};
  DeviceChoice choice{.cuda = true};
  const std::string prefix = "cuda:";
  if (name.rfind(prefix, 0) == 0 && absl::SimpleAtoi(name.substr(prefix.size()), &choice.index) && choice.index >= 0 &&
      choice.index < 128) {
    return choice;
  }
  return absl::InvalidArgumentError(StrCat("device \"", name, "\" is not known: say cpu, cuda or cuda:N"));
}

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

// The library throws; nothing of that leaves this file.
template <typename Function>
absl::Status CatchAll(std::string_view what, Function function) {
  try {
    function();
    return absl::OkStatus();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(StrCat(what, ": out of memory"));
  } catch (const c10::OutOfMemoryError&) {
    return absl::ResourceExhaustedError(StrCat(what, ": out of memory on the device"));
  } catch (const c10::Error& error) {
    return absl::InternalError(StrCat(what, ": ", std::string_view(error.what_without_backtrace())));
  } catch (const std::exception& error) {
    return absl::InternalError(StrCat(what, ": ", std::string_view(error.what())));
  }
}

absl::StatusOr<std::unique_ptr<BertForward>> MakeForward(const BertConfig& config, BertWeights weights,
                                                         const BertEncoderOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const DeviceChoice device, ParseDevice(options.device));
  RETRO_ASSIGN_OR_RETURN(const int threads, ChooseThreads(options.threads));
  const bool half = options.numbers == BertNumbers::kFp16;
  std::unique_ptr<BertForward> forward;
  std::string unusable;
  const absl::Status status = CatchAll(StrCat("loading ", config.folder), [&] {
    if (device.cuda) unusable = LoadCuda(device.index);
    if (!unusable.empty()) return;
    if (device.cuda) {
      const at::Device cuda(at::kCUDA, static_cast<c10::DeviceIndex>(device.index));
      forward = std::make_unique<BertDevice>(config, weights, cuda, half);
    } else if (options.plain_operators) {
      forward = std::make_unique<BertDevice>(config, weights, at::kCPU, /*half=*/false);
    } else {
      const WeightFormat format = half ? WeightFormat::kFp16Packed : WeightFormat::kFp32;
      forward = std::make_unique<BertCpu>(config, std::move(weights), format, threads);
    }
  });
  RETRO_RETURN_IF_ERROR(status);
  if (!unusable.empty()) return absl::FailedPreconditionError(unusable);
  return forward;
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
  RETRO_RETURN_IF_ERROR(CatchAll("embedding", [&] { state_->forward->Run(spans, vectors.data()); }));
  return vectors;
}

}  // namespace retro
