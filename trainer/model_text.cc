#include "trainer/model_text.h"

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {

absl::Status OpenModelText(const std::string& folder, const CheckpointInfo& model, ModelText& text) {
  RETRO_ASSIGN_OR_RETURN(text.data, DataSet::Open(folder));
  const DataHeader& header = text.data->header();
  if (header.tokenizer_fingerprint != model.tokenizer_fingerprint || header.vocabulary != model.config.vocabulary ||
      header.chunk_length != model.config.chunk_length) {
    return absl::FailedPreconditionError(
        StrCat(folder, " was prepared with another tokenizer or chunk length than the model's: prepare it again"));
  }
  if (model.config.cca_layers.empty()) return absl::OkStatus();
  RETRO_ASSIGN_OR_RETURN(text.neighbours, NeighbourTable::Open(folder, *text.data));
  return absl::OkStatus();
}

}  // namespace retro
