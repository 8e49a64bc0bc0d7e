// BERT-family sentence encoder: token ids in, one vector for each text out. The face of retro_core's embedding part;
// includes no torch header.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "retriever_service/embed/bert_config.h"
#include "retriever_service/embed/embedder.h"

namespace retro {

enum class BertNumbers {
  kFp32,  // as the checkpoint has it, but for rounding
  kFp16,  // fp16 weights; on a CPU all sums stay fp32
};

struct BertEncoderOptions {
  std::string device = "cpu";  // "cpu", "cuda" or "cuda:N"
  BertNumbers numbers = BertNumbers::kFp16;
  int threads = 0;     // on a CPU; 0: as many as the process may use
  int max_tokens = 0;  // instead of the folder's maximal length; 0: the folder's
  // Runs the GPU's code path on a CPU: for tests.
  bool plain_operators = false;
};

// One call at a time, from any thread. Every instance holds its own copy of the weights.
class BertEncoder {
 public:
  // Reads and packs the model of `folder` (see bert_config.h). `tokenizer_fingerprint` goes into the encoder's own.
  // NOT_FOUND, INVALID_ARGUMENT for what is wrong with the folder; FAILED_PRECONDITION for a device that is not there.
  static absl::StatusOr<std::unique_ptr<BertEncoder>> Load(const std::string& folder,
                                                           const std::string& tokenizer_fingerprint,
                                                           const BertEncoderOptions& options);
  ~BertEncoder();
  BertEncoder(const BertEncoder&) = delete;
  BertEncoder& operator=(const BertEncoder&) = delete;

  // Row-major [sequences.size(), config().hidden_size]. Sequences hold 1 to config().max_tokens ids, [CLS] and [SEP]
  // included. INVALID_ARGUMENT names the sequence that does not; RESOURCE_EXHAUSTED when memory runs out.
  absl::StatusOr<std::vector<float>> Encode(std::span<const TokenSequence> sequences);

  const BertConfig& config() const;
  // 32 raw bytes: SHA-256 over whatever decides which vector a text gets (weights, tokenizer, network, pooling,
  // normalisation, maximal length, prefixes), and nothing that only rounds it (number format, device, threads).
  const std::string& fingerprint() const;

 private:
  struct State;
  explicit BertEncoder(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace retro
