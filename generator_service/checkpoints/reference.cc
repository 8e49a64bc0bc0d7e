#include "generator_service/checkpoints/reference.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/model/decoder.h"

namespace retro {
namespace {

enum class What { kLogits, kEncoded, kConditioning, kLast };
enum class Neighbours { kGiven, kNone, kAllPad };

// One output: of which run, and what of it.
struct Output {
  const char* name;
  What what;
  Neighbours neighbours;
  std::optional<double> gate;
};

const std::vector<Output>& Outputs() {
  static const auto* outputs = new std::vector<Output>{
      {"logits_f64", What::kLogits, Neighbours::kGiven, {}},
      {"logits_rope32_f64", What::kLogits, Neighbours::kGiven, {}},
      {"logits_off_f64", What::kLogits, Neighbours::kNone, {}},
      {"logits_all_pad_neighbours_f64", What::kLogits, Neighbours::kAllPad, {}},
      {"logits_gate0_f64", What::kLogits, Neighbours::kGiven, 0.0},
      {"E_f64", What::kEncoded, Neighbours::kGiven, {}},
      {"encoder_out_blkrd_f64", What::kEncoded, Neighbours::kGiven, {}},
      {"encoded_neighbours_f64", What::kEncoded, Neighbours::kGiven, {}},
      {"cond_H_f64", What::kConditioning, Neighbours::kGiven, {}},
      {"H_last_f64", What::kLast, Neighbours::kGiven, {}},
  };
  return *outputs;
}

std::vector<TokenId> Ids(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.flatten().contiguous();
  const int64_t* ids = flat.const_data_ptr<int64_t>();
  std::vector<TokenId> tokens;
  tokens.reserve(static_cast<size_t>(flat.numel()));
  // What does not fit becomes an id that no vocabulary has, for the model to refuse.
  for (int64_t i = 0; i < flat.numel(); ++i)
    tokens.push_back(std::in_range<TokenId>(ids[i]) ? static_cast<TokenId>(ids[i]) : -1);
  return tokens;
}

// What one run of one text gives.
struct Result {
  at::Tensor logits;  // [n, V]
  Trace trace;        // empty if the text ran in pieces
};

class TextRun {
 public:
  TextRun(const RetroModel& model, const RunOptions& options, const ReferenceText& text)
      : model_(model), options_(options), text_(text) {
    length_ = static_cast<int64_t>(text.tokens.size());
    sequence_.offset = options.offset.value_or(DefaultOffset(model.config(), length_));
  }

  absl::StatusOr<Result> Run(const Output& output) {
    sequence_.retrieval = output.neighbours != Neighbours::kNone;
    sequence_.gate = output.gate;
    if (output.neighbours == Neighbours::kAllPad) {
      for (ChunkNeighbours& chunk : text_.neighbours) {
        std::ranges::fill(chunk.tokens, static_cast<TokenId>(model_.config().pad_id));
      }
    }
    RETRO_RETURN_IF_ERROR(FillLastChunk());
    Result result;
    RETRO_RETURN_IF_ERROR(RunPieces(result));
    return result;
  }

 private:
  // Some references encode the neighbours of a last chunk that is not full, though nothing attends to them: the chunk
  // is filled up with pads, where those change nothing.
  absl::Status FillLastChunk() {
    const ChunkGeometry geometry(model_.config().chunk_length, sequence_.offset);
    const int64_t complete = geometry.CompleteChunks(length_);
    const int64_t given = static_cast<int64_t>(text_.neighbours.size());
    const bool fills = given == complete + 1 && geometry.Begin(complete) < length_ && model_.config().additive_pad_mask;
    if (fills) text_.tokens.resize(geometry.End(complete), static_cast<TokenId>(model_.config().pad_id));
    if (fills || given == complete) return absl::OkStatus();
    return absl::InvalidArgumentError(
        StrCat("the reference has neighbours of ", given, " chunks, its text completes ", complete, " with ",
               sequence_.offset, " tokens in the first one (0: a full one): is that the offset it was made with?"));
  }

  absl::Status RunPieces(Result& result) {
    RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<Sequence> sequence, model_.NewSequence(sequence_));
    const int64_t tokens = static_cast<int64_t>(text_.tokens.size());
    std::span<const ChunkNeighbours> neighbours = text_.neighbours;
    std::vector<at::Tensor> logits;
    for (int64_t begin = 0; begin < tokens;) {
      const int64_t count = options_.piece == 0 ? tokens : std::min(options_.piece, tokens - begin);
      const int64_t chunks = sequence->options().retrieval ? sequence->ChunksCompletedBy(count) : 0;
      const Piece piece{.sequence = sequence.get(),
                        .tokens = std::span(text_.tokens).subspan(begin, count),
                        .neighbours = neighbours.first(chunks),
                        .logit_rows = kAllRows,
                        .trace = options_.piece == 0 ? &result.trace : nullptr};
      RETRO_ASSIGN_OR_RETURN(std::vector<at::Tensor> piece_logits, model_.Forward({&piece, 1}));
      logits.push_back(std::move(piece_logits[0]));
      neighbours = neighbours.subspan(chunks);
      begin += count;
    }
    result.logits = at::cat(logits).narrow(0, 0, length_);
    if (result.trace.conditioning.defined())
      result.trace.conditioning = result.trace.conditioning.narrow(0, 0, length_);
    if (result.trace.last.defined()) result.trace.last = result.trace.last.narrow(0, 0, length_);
    return absl::OkStatus();
  }

  const RetroModel& model_;
  const RunOptions& options_;
  ReferenceText text_;
  int64_t length_ = 0;
  SequenceOptions sequence_;
};

at::Tensor Pick(const Result& result, What what) {
  switch (what) {
    case What::kLogits:
      return result.logits;
    case What::kEncoded:
      return result.trace.encoded;
    case What::kConditioning:
      return result.trace.conditioning;
    case What::kLast:
      break;
  }
  return result.trace.last;
}

}  // namespace

std::vector<std::string> KnownOutputs() {
  std::vector<std::string> names;
  names.reserve(Outputs().size());
  for (const Output& output : Outputs()) names.emplace_back(output.name);
  return names;
}

absl::StatusOr<Reference> ReadInputs(const SafetensorsFile& file) {
  RETRO_ASSIGN_OR_RETURN(at::Tensor tokens, ReadReference(file, "tokens"));
  const char* key = file.tensors().contains("retrieved") ? "retrieved" : "neighbours";
  RETRO_ASSIGN_OR_RETURN(at::Tensor neighbours, ReadReference(file, key));
  Reference reference{.batched = tokens.dim() == 2};
  if (!reference.batched) tokens = tokens.unsqueeze(0);
  if (neighbours.dim() == 3) neighbours = neighbours.unsqueeze(0);
  if (tokens.scalar_type() != at::kLong || neighbours.scalar_type() != at::kLong || tokens.dim() != 2 ||
      neighbours.dim() != 4 || tokens.size(0) != neighbours.size(0)) {
    return absl::InvalidArgumentError(StrCat(file.path(), ": needs integers tokens [n] and ", key,
                                             " [chunks, k, r], both with or without a batch dimension"));
  }
  for (int64_t b = 0; b < tokens.size(0); ++b) {
    ReferenceText& text = reference.texts.emplace_back();
    text.tokens = Ids(tokens[b]);
    for (int64_t u = 0; u < neighbours.size(1); ++u) {
      text.neighbours.push_back({neighbours.size(2), Ids(neighbours[b][u])});
    }
  }
  return reference;
}

absl::StatusOr<std::map<std::string, at::Tensor>> RunReference(const RetroModel& model, const Reference& reference,
                                                               const std::vector<std::string>& wanted,
                                                               const RunOptions& options) {
  std::map<std::string, at::Tensor> outputs;
  for (const Output& output : Outputs()) {
    if (std::ranges::find(wanted, output.name) == wanted.end()) continue;
    std::vector<at::Tensor> by_text;
    for (const ReferenceText& text : reference.texts) {
      RETRO_ASSIGN_OR_RETURN(const Result result, TextRun(model, options, text).Run(output));
      by_text.push_back(Pick(result, output.what));
    }
    if (!by_text[0].defined()) continue;  // no such thing in this run
    outputs[output.name] = reference.batched ? at::stack(by_text) : by_text[0];
  }
  return outputs;
}

}  // namespace retro
