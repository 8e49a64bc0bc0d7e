#include "trainer/evaluation/evaluated_model.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/model/weight_table.h"

namespace retro {
namespace {

// Without the encoder's attention to the chunk, and without the weights that only it has.
absl::StatusOr<std::unique_ptr<RetroModel>> LoadUnconditioned(const EvaluationOptions& options,
                                                              const CheckpointInfo& info,
                                                              const ModelOptions& model_options) {
  RETRO_ASSIGN_OR_RETURN(auto weights, ReadCheckpointWeights(options.model, info));
  ModelConfig config = info.config;
  config.encoder_cca_layers.clear();
  std::map<std::string, at::Tensor> kept;
  for (const WeightSpec& spec : WeightTable(config)) kept.emplace(spec.name, weights.at(spec.name));
  return RetroModel::Create(config, kept, options.device, model_options);
}

absl::StatusOr<std::unique_ptr<RetroModel>> LoadWhole(const EvaluationOptions& options,
                                                      const ModelOptions& model_options) {
  RETRO_ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(options.model, options.device, model_options));
  return std::move(loaded.model);
}

}  // namespace

absl::StatusOr<EvaluatedModel> OpenEvaluatedModel(const EvaluationOptions& options) {
  EvaluatedModel result;
  RETRO_ASSIGN_OR_RETURN(const ModelNumbers numbers, ModelNumbersFromName(options.numbers));
  RETRO_ASSIGN_OR_RETURN(result.info, ReadCheckpointInfo(options.model));
  if (result.info.tokenizer_file.empty()) {
    return absl::InvalidArgumentError(StrCat(options.model, " has no tokenizer"));
  }
  RETRO_ASSIGN_OR_RETURN(result.tokenizer, LoadTokenizer(ModelFilePath(options.model, result.info.tokenizer_file)));
  if (!result.tokenizer->lossless()) {
    return absl::InvalidArgumentError(StrCat("the tokenizer of ", options.model,
                                             " does not give back a text byte for byte: its bytes cannot be counted"));
  }
  for (TokenId id = 0; id < result.tokenizer->vocabulary_size(); ++id) {
    result.token_bytes.push_back(static_cast<uint32_t>(result.tokenizer->Decode({&id, 1}).size()));
  }
  RETRO_RETURN_IF_ERROR(OpenModelText(options.data, result.info, result.text));
  // What a chunk shares with its neighbours is asked of a plain decoder's text too.
  std::error_code error;
  if (result.text.table() == nullptr && std::filesystem::exists(options.data + "/" + kNeighbourHeaderName, error)) {
    RETRO_ASSIGN_OR_RETURN(result.text.neighbours, NeighbourTable::Open(options.data, *result.text.data));
  }
  const ModelOptions model_options = {.numbers = numbers};
  RETRO_ASSIGN_OR_RETURN(result.model, options.conditioning ? LoadWhole(options, model_options)
                                                            : LoadUnconditioned(options, result.info, model_options));
  return result;
}

}  // namespace retro
