// Any bytes as the files of an embedder's folder, parted by zero bytes: they are refused, or the sizes are such that
// the network can be made.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>

#include "retriever_service/embed/bert_config.h"
#include "tests/fuzz/fuzz.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

constexpr std::array kFiles = {"config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
                               "config_sentence_transformers.json"};

const char kConfig[] =
    R"({"model_type":"bert","hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":16,)"
    R"("max_position_embeddings":32,"type_vocab_size":2,"vocab_size":9,"hidden_act":"gelu","layer_norm_eps":1e-12})";
const char kModules[] = R"([{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},)"
                        R"({"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},)"
                        R"({"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}])";
const char kPooling[] = R"({"word_embedding_dimension":8,"pooling_mode_mean_tokens":true})";
const char kSentence[] = R"({"max_seq_length":16,"do_lower_case":false})";
const char kPrompts[] = R"({"prompts":{"query":"query: ","passage":"passage: "}})";

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string zero(1, '\0');
  return {kConfig, kConfig + zero + kModules + zero + kPooling,
          kConfig + zero + kModules + zero + kPooling + zero + kSentence + zero + kPrompts};
}

void FuzzOne(std::string_view input) {
  static const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "1_Pooling");
  for (const char* file : kFiles) {
    const std::string path = folder / file;
    if (input.empty()) {
      std::filesystem::remove(path);
      continue;
    }
    const size_t end = std::min(input.find('\0'), input.size());
    std::ofstream(path, std::ios::binary) << input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  const auto config = ReadBertConfig(folder.path());
  if (!config.ok()) {
    const bool refused = config.status().code() == absl::StatusCode::kInvalidArgument ||
                         config.status().code() == absl::StatusCode::kNotFound;
    return Require(refused, "refused with another status");
  }
  Require(config->hidden_size > 0 && config->layers > 0 && config->heads > 0 && config->intermediate_size > 0 &&
              config->hidden_size % config->heads == 0 && config->max_positions > 0 && config->token_types > 0 &&
              config->vocabulary_size > 0,
          "taken though it is no network");
  Require(config->max_tokens > 0 && config->max_tokens <= config->max_positions, "more tokens than positions");
}

}  // namespace retro
