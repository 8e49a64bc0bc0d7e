// A RETRO model in memory: full forward, prefill in pieces of any size and token-by-token decoding through one
// function, which give the same logits (fp32: to 1e-4). Source: Borgeaud et al. 2021, Algorithm 1.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "generator_service/model/config.h"
#include "generator_service/model/neighbours.h"
#include "generator_service/model/numbers.h"
#include "generator_service/model/sequence.h"

namespace at {
class Tensor;
}

namespace retro {

class KvPool;
struct ModelWeights;
struct Trace;  // decoder.h

inline constexpr int64_t kAllRows = std::numeric_limits<int64_t>::max();

// The next tokens of one sequence.
struct Piece {
  Sequence* sequence = nullptr;
  std::span<const TokenId> tokens;  // at least one
  // One entry for each chunk that the tokens complete (Sequence::ChunksCompletedBy), in order; the last token may
  // itself complete one. Empty for a sequence without retrieval.
  std::span<const ChunkNeighbours> neighbours;
  int64_t logit_rows = 1;  // logits are wanted for so many of the last tokens, of all of them if there are fewer
  bool want_mass = false;  // for Sequence::attention_mass()
  Trace* trace = nullptr;
};

struct ModelOptions {
  ModelNumbers numbers = ModelNumbers::kFp32;
  // Of the keys and values of all sequences together, in blocks of m tokens: as many as fit, at least one. Taken at
  // once; the system may give the memory out as it is first written to. 0: for kDefaultCacheSequences sequences of
  // config.max_length.
  int64_t cache_bytes = 0;
};

inline constexpr int64_t kDefaultCacheSequences = 16;

// Immutable after creation but for its sequences' caches and torch's own state: call Forward, and destroy sequences,
// on one thread, which then owns torch's workers.
class RetroModel {
 public:
  // Weights by the names of the weight table, on the CPU, of any floating-point dtype; computed with on `device`
  // ("cpu", "cuda", "cuda:1"). INVALID_ARGUMENT naming the weight that is missing, misshapen or unknown, or for numbers
  // that the device does not compute with; FAILED_PRECONDITION where the device is not to be had; RESOURCE_EXHAUSTED
  // where it has no room.
  static absl::StatusOr<std::unique_ptr<RetroModel>> Create(const ModelConfig& config,
                                                            const std::map<std::string, at::Tensor>& weights,
                                                            const std::string& device,
                                                            const ModelOptions& options = {});
  ~RetroModel();

  // What Create would say of device and numbers; on CUDA it loads torch's library for it.
  static absl::Status CheckDevice(const std::string& device, ModelNumbers numbers);
  // Blocks of m tokens that a model with these options has.
  static int64_t CacheBlocks(const ModelConfig& config, const ModelOptions& options);

  const ModelConfig& config() const { return config_; }
  const std::string& device() const { return device_; }
  ModelNumbers numbers() const { return numbers_; }

  // For steps of fixed shape (fixed_step.h): what Forward computes with, and where it keeps keys and values.
  const ModelWeights& weights() const { return *weights_; }
  KvPool& pool() const { return *pool_; }

  // Blocks of m tokens for the caches of all sequences: how many there are, and how many are taken.
  int64_t cache_blocks() const;
  int64_t cache_blocks_taken() const;

  // INVALID_ARGUMENT for an offset outside 0 ... m-1 or a gate that is not finite, or if a model with learned positions
  // is to slide.
  absl::StatusOr<std::unique_ptr<Sequence>> NewSequence(const SequenceOptions& options) const;

  // Runs the pieces, each of another sequence, as one batch. Logits [rows, V] by piece, fp32 on the model's device
  // (undefined for no rows). INVALID_ARGUMENT: no tokens, ids out of the vocabulary, a sequence longer than
  // config.max_length, a wrong number or size of neighbours. RESOURCE_EXHAUSTED: out of memory or cache blocks. On any
  // error all sequences are where they were before.
  absl::StatusOr<std::vector<at::Tensor>> Forward(std::span<const Piece> pieces) const;
  // What Forward would say of it before it computes anything, but for the cache.
  absl::Status CheckPiece(const Piece& piece) const;

 private:
  RetroModel(ModelConfig config, std::string device, ModelNumbers numbers, std::unique_ptr<ModelWeights> weights,
             std::shared_ptr<KvPool> pool);
  absl::Status CheckPieces(std::span<const Piece> pieces) const;
  absl::Status CheckTokens(std::span<const TokenId> tokens) const;

  ModelConfig config_;
  std::string device_;
  ModelNumbers numbers_;
  std::unique_ptr<ModelWeights> weights_;
  std::shared_ptr<KvPool> pool_;  // shared with the sequences
};

}  // namespace retro
