#include "generator_service/serve/model_message.h"

#include "absl/strings/escaping.h"
#include "common/base/strings.h"
#include "generator_service/model/weight_table.h"

namespace retro {

generator::v1::GetModelResponse ModelMessage(const ServedModel& model, const std::vector<std::string>& warnings) {
  const ModelConfig& config = model.config();
  const std::vector<WeightSpec> table = WeightTable(config);
  generator::v1::GetModelResponse message;
  message.set_name(model.name);
  message.set_revision(absl::HexStringToBytes(model.info.revision));
  message.set_parameters(static_cast<uint64_t>(CountMatrixParameters(table)));
  message.set_parameters_total(static_cast<uint64_t>(CountParameters(table)));
  message.set_context_length(static_cast<uint32_t>(config.max_length));
  message.set_chunk_size(static_cast<uint32_t>(config.chunk_length));
  message.set_neighbours(static_cast<uint32_t>(model.info.trained_neighbours));
  message.set_layers(static_cast<uint32_t>(config.layers));
  message.set_width(static_cast<uint32_t>(config.width));
  for (const int64_t layer : config.cca_layers) message.add_cca_layers(static_cast<uint32_t>(layer));
  message.set_vocabulary_size(static_cast<uint32_t>(config.vocabulary));
  message.set_tokenizer_fingerprint(model.tokenizer->fingerprint());
  message.set_trained_embedder_fingerprint(absl::HexStringToBytes(model.info.embedder_fingerprint));
  for (const std::string& warning : warnings) message.add_warnings(warning);
  message.set_device(model.model->device());
  message.set_dtype(std::string(ModelNumbersName(model.model->numbers())));
  message.set_gate(static_cast<float>(config.gate));
  message.set_version(RETRO_VERSION);
  return message;
}

}  // namespace retro
