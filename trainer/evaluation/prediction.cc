#include "trainer/evaluation/prediction.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"
#include "generator_service/model/decoder.h"

namespace retro {

absl::Status PredictDocument(const RetroModel& model, const DataSet& data, uint64_t document,
                             const PredictionOptions& options, const std::function<void(const Prediction&)>& use) {
  const bool retrieval = options.neighbours != nullptr;
  if (retrieval && !data.IsEvenlyCut(document)) {
    return absl::FailedPreconditionError(
        StrCat(data.folder(), ": document ", document,
               " was cut by a store, with chunks that end early before a character: prepare the texts to be evaluated "
               "with retro-train"));
  }
  const auto text = static_cast<int64_t>(data.text_tokens(document));
  const int64_t count = options.tokens_max == 0 ? text : std::min(text, static_cast<int64_t>(options.tokens_max));
  std::vector<TokenId> tokens(count);
  data.CopyTokens(data.documents()[document].first_token, count, tokens.data());
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<Sequence> sequence,
                         model.NewSequence({.retrieval = retrieval, .slide = true}));
  while (sequence->position() + 1 < count) {
    const int64_t begin = sequence->position();
    const int64_t rows = std::min(sequence->room(), count - 1 - begin);
    std::vector<ChunkNeighbours> found;
    for (int64_t u = 0; retrieval && u < sequence->ChunksCompletedBy(rows); ++u) {
      const int64_t chunk = sequence->geometry().CompleteChunks(begin) + u;
      found.push_back(options.neighbours(data.first_chunk(document) + static_cast<uint64_t>(chunk)));
    }
    Trace trace;
    const Piece piece = {.sequence = sequence.get(),
                         .tokens = std::span(tokens).subspan(begin, rows),
                         .neighbours = found,
                         .logit_rows = options.logits ? kAllRows : 0,
                         .trace = &trace};
    RETRO_ASSIGN_OR_RETURN(const std::vector<at::Tensor> logits, model.Forward({&piece, 1}));
    const std::vector<int64_t> next(tokens.begin() + begin + 1, tokens.begin() + begin + 1 + rows);
    RETRO_RETURN_IF_ERROR(CatchTorch([&] {
      use({.first = static_cast<uint64_t>(begin + 1),
           .logits = logits[0],
           .hidden = trace.last,
           .targets = at::tensor(next, at::kLong).to(trace.last.device())});
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

}  // namespace retro
