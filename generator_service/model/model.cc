#include "generator_service/model/model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/device.h"
#include "common/torch/torch_status.h"
#include "generator_service/model/decoder.h"
#include "generator_service/model/sequence_state.h"
#include "generator_service/model/weights.h"

namespace retro {
namespace {

// Ids of all pieces, one after the other: [N].
at::Tensor TokenRows(std::span<const Piece> pieces, const at::Device& device) {
  std::vector<int64_t> ids;
  for (const Piece& piece : pieces) ids.insert(ids.end(), piece.tokens.begin(), piece.tokens.end());
  return at::tensor(ids, at::kLong).to(device);
}

std::vector<DecoderPiece> DecoderPieces(std::span<const Piece> pieces) {
  std::vector<DecoderPiece> decoder_pieces;
  int64_t first_row = 0;
  for (const Piece& piece : pieces) {
    const int64_t rows = static_cast<int64_t>(piece.tokens.size());
    decoder_pieces.push_back({.state = &piece.sequence->state(),
                              .first_row = first_row,
                              .rows = rows,
                              .neighbours = piece.neighbours,
                              .want_mass = piece.want_mass,
                              .trace = piece.trace});
    first_row += rows;
  }
  return decoder_pieces;
}

// Reads out only the rows that were asked for, in one batch.
std::vector<at::Tensor> ReadOutPieces(const ModelWeights& weights, const ModelConfig& config, const at::Tensor& h,
                                      std::span<const Piece> pieces) {
  std::vector<at::Tensor> wanted;
  std::vector<int64_t> counts;
  int64_t first_row = 0;
  for (const Piece& piece : pieces) {
    const int64_t rows = static_cast<int64_t>(piece.tokens.size());
    const int64_t count = std::min(rows, piece.logit_rows);
    wanted.push_back(h.narrow(0, first_row + rows - count, count));
    counts.push_back(count);
    first_row += rows;
  }
  const at::Tensor rows = wanted.size() == 1 ? wanted[0] : at::cat(wanted);
  std::vector<at::Tensor> logits(pieces.size());
  if (rows.size(0) == 0) return logits;
  const at::Tensor all = ReadOut(weights, config, rows);
  int64_t first = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (counts[i] > 0) logits[i] = all.narrow(0, first, counts[i]);
    first += counts[i];
  }
  return logits;
}

// bf16 runs on CPUs too, though slowly: the same code as on CUDA.
absl::Status CheckNumbers(const at::Device& device, ModelNumbers numbers) {
  if (device.is_cpu() || numbers == ModelNumbers::kFp32 || numbers == ModelNumbers::kBf16) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat(std::string(ModelNumbersName(numbers)), " is for the CPU alone: take bf16 on ", device.str()));
}

at::ScalarType CacheType(ModelNumbers numbers) {
  switch (numbers) {
    case ModelNumbers::kFp32:
      return at::kFloat;
    case ModelNumbers::kBf16:
      return at::kBFloat16;
    default:
      return at::kHalf;
  }
}

std::shared_ptr<KvPool> MakePool(const ModelConfig& config, const at::Device& device, const ModelOptions& options) {
  return std::make_shared<KvPool>(config, RetroModel::CacheBlocks(config, options),
                                  at::TensorOptions().device(device).dtype(CacheType(options.numbers)));
}

// Cache blocks for the pieces' tokens, before anything is computed. In the end the sequences have those that they need
// for where they are: as many as before if the pieces failed.
class CacheRoom {
 public:
  explicit CacheRoom(std::span<const Piece> pieces) : pieces_(pieces) {}
  ~CacheRoom() {
    for (const Piece& piece : pieces_) piece.sequence->state().cache->Trim(piece.sequence->state().held());
  }
  CacheRoom(const CacheRoom&) = delete;
  CacheRoom& operator=(const CacheRoom&) = delete;

  absl::Status Reserve() {
    for (const Piece& piece : pieces_) {
      SequenceState& state = piece.sequence->state();
      KvCache& cache = *state.cache;
      LeaveWindow(state);
      if (cache.Reserve(state.held() + static_cast<int64_t>(piece.tokens.size()))) continue;
      return absl::ResourceExhaustedError(StrCat("all ", cache.pool().blocks(), " cache blocks are taken"));
    }
    return absl::OkStatus();
  }

 private:
  // Gives back the blocks that no token from the sequence's position on sees any more.
  static void LeaveWindow(SequenceState& state) {
    if (!state.options.slide) return;
    while (state.cached_from < state.window.Begin(state.position)) {
      state.cache->DropOldestBlock();
      state.cached_from += state.cache->pool().block_tokens();
    }
  }

  const std::span<const Piece> pieces_;
};

}  // namespace

RetroModel::RetroModel(ModelConfig config, std::string device, ModelNumbers numbers,
                       std::unique_ptr<ModelWeights> weights, std::shared_ptr<KvPool> pool)
    : config_(std::move(config)),
      device_(std::move(device)),
      numbers_(numbers),
      weights_(std::move(weights)),
      pool_(std::move(pool)) {}

RetroModel::~RetroModel() = default;

absl::StatusOr<std::unique_ptr<RetroModel>> RetroModel::Create(const ModelConfig& config,
                                                               const std::map<std::string, at::Tensor>& weights,
                                                               const std::string& device, const ModelOptions& options) {
  RETRO_RETURN_IF_ERROR(ValidateModelConfig(config));
  RETRO_ASSIGN_OR_RETURN(const at::Device target, OpenDevice(device));
  RETRO_RETURN_IF_ERROR(CheckNumbers(target, options.numbers));
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<RetroModel>> {
    const c10::InferenceMode inference;
    RETRO_ASSIGN_OR_RETURN(ModelWeights bound, BindWeights(config, weights, target, options.numbers));
    return std::unique_ptr<RetroModel>(new RetroModel(config, device, options.numbers,
                                                      std::make_unique<ModelWeights>(std::move(bound)),
                                                      MakePool(config, target, options)));
  });
}

absl::Status RetroModel::CheckDevice(const std::string& device, ModelNumbers numbers) {
  RETRO_ASSIGN_OR_RETURN(const at::Device target, OpenDevice(device));
  return CheckNumbers(target, numbers);
}

int64_t RetroModel::CacheBlocks(const ModelConfig& config, const ModelOptions& options) {
  const int64_t m = config.chunk_length;
  if (options.cache_bytes == 0) return (config.max_length + m - 1) / m * kDefaultCacheSequences;
  const auto element_bytes = static_cast<int64_t>(at::elementSize(CacheType(options.numbers)));
  return std::max<int64_t>(options.cache_bytes / KvPool::BlockBytes(config, element_bytes), 1);
}

int64_t RetroModel::cache_blocks() const { return pool_->blocks(); }
int64_t RetroModel::cache_blocks_taken() const { return pool_->blocks_taken(); }

absl::StatusOr<std::unique_ptr<Sequence>> RetroModel::NewSequence(const SequenceOptions& options) const {
  if (options.offset < 0 || options.offset >= config_.chunk_length) {
    return absl::InvalidArgumentError(
        StrCat("offset must be from 0 to ", config_.chunk_length - 1, ", is ", options.offset));
  }
  const double gate = options.gate.value_or(config_.gate);
  if (!std::isfinite(gate)) return absl::InvalidArgumentError("the CCA gate must be a finite number");
  if (options.slide && config_.learned_positions != LearnedPositions::kNone)
    return absl::InvalidArgumentError("the model has learned positions, and none past its context: it cannot slide");
  SequenceOptions own = options;
  own.gate = gate;
  own.retrieval = options.retrieval && !config_.cca_layers.empty();
  return std::make_unique<Sequence>(std::make_unique<SequenceState>(own, config_, pool_));
}

absl::Status RetroModel::CheckTokens(std::span<const TokenId> tokens) const {
  for (const TokenId id : tokens) {
    if (id < 0 || id >= config_.vocabulary) {
      return absl::InvalidArgumentError(StrCat("token id ", id, " is not in the vocabulary of ", config_.vocabulary));
    }
  }
  return absl::OkStatus();
}

absl::Status RetroModel::CheckPiece(const Piece& piece) const {
  const int64_t rows = static_cast<int64_t>(piece.tokens.size());
  const Sequence& sequence = *piece.sequence;
  if (rows == 0) return absl::InvalidArgumentError("a piece needs at least one token");
  if (rows > sequence.room()) {
    return absl::InvalidArgumentError(
        sequence.options().slide
            ? StrCat("a piece of ", rows, " tokens, where the window moves on after ", sequence.room())
            : StrCat("a sequence of ", sequence.position() + rows, " tokens is longer than the model's ",
                     config_.max_length));
  }
  RETRO_RETURN_IF_ERROR(CheckTokens(piece.tokens));
  const int64_t expected = sequence.options().retrieval ? sequence.ChunksCompletedBy(rows) : 0;
  if (static_cast<int64_t>(piece.neighbours.size()) != expected) {
    return absl::InvalidArgumentError(StrCat("neighbours of ", piece.neighbours.size(),
                                             " chunks given where the tokens complete ", expected,
                                             " chunks that take neighbours"));
  }
  for (const ChunkNeighbours& chunk : piece.neighbours) {
    if (chunk.count < 0 || static_cast<int64_t>(chunk.tokens.size()) != chunk.count * config_.neighbour_length) {
      return absl::InvalidArgumentError(StrCat(chunk.count, " neighbours need ", config_.neighbour_length,
                                               " tokens each, ", chunk.tokens.size(), " tokens given"));
    }
    RETRO_RETURN_IF_ERROR(CheckTokens(chunk.tokens));
  }
  return absl::OkStatus();
}

absl::Status RetroModel::CheckPieces(std::span<const Piece> pieces) const {
  std::set<const Sequence*> seen;
  for (const Piece& piece : pieces) {
    if (piece.sequence == nullptr || !seen.insert(piece.sequence).second) {
      return absl::InvalidArgumentError("each piece needs a sequence of its own");
    }
    RETRO_RETURN_IF_ERROR(CheckPiece(piece));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::Tensor>> RetroModel::Forward(std::span<const Piece> pieces) const {
  if (pieces.empty()) return std::vector<at::Tensor>();
  RETRO_RETURN_IF_ERROR(CheckPieces(pieces));
  CacheRoom room(pieces);
  RETRO_RETURN_IF_ERROR(room.Reserve());
  return CatchTorch([&]() -> absl::StatusOr<std::vector<at::Tensor>> {
    const c10::InferenceMode inference;
    const at::Tensor tokens = TokenRows(pieces, pool_->keys(0).device());
    DecoderPass pass = RunDecoder(*weights_, config_, tokens, DecoderPieces(pieces));
    std::vector<at::Tensor> logits = ReadOutPieces(*weights_, config_, pass.h, pieces);
    Advance(pass.moves);  // last: nothing can fail any more
    return logits;
  });
}

}  // namespace retro
