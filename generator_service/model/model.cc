#include "generator_service/model/model.h"

#include <ATen/ATen.h>

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
    const int64_t count = piece.logits == LogitsFor::kNone ? 0 : piece.logits == LogitsFor::kLast ? 1 : rows;
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

}  // namespace

RetroModel::RetroModel(ModelConfig config, std::string device, std::unique_ptr<ModelWeights> weights)
    : config_(std::move(config)), device_(std::move(device)), weights_(std::move(weights)) {}

RetroModel::~RetroModel() = default;

absl::StatusOr<std::unique_ptr<RetroModel>> RetroModel::Create(const ModelConfig& config,
                                                               const std::map<std::string, at::Tensor>& weights,
                                                               const std::string& device) {
  RETRO_RETURN_IF_ERROR(ValidateModelConfig(config));
  RETRO_ASSIGN_OR_RETURN(const at::Device target, OpenDevice(device));
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<RetroModel>> {
    const c10::InferenceMode inference;
    WeightMap placed;
    for (const auto& [name, tensor] : weights) placed.emplace(name, tensor.to(target));
    RETRO_ASSIGN_OR_RETURN(ModelWeights bound, BindWeights(config, placed));
    return std::unique_ptr<RetroModel>(
        new RetroModel(config, device, std::make_unique<ModelWeights>(std::move(bound))));
  });
}

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
  own.reserve_tokens = std::min(options.reserve_tokens, config_.max_length);
  return std::make_unique<Sequence>(std::make_unique<SequenceState>(own, config_));
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
  return CatchTorch([&]() -> absl::StatusOr<std::vector<at::Tensor>> {
    const c10::InferenceMode inference;
    const at::Tensor tokens = TokenRows(pieces, weights_->embedding.device());
    const at::Tensor h = RunDecoder(*weights_, config_, tokens, DecoderPieces(pieces));
    return ReadOutPieces(*weights_, config_, h, pieces);
  });
}

}  // namespace retro
