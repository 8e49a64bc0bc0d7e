#include "retriever_service/embedder_flags.h"

#include <string_view>

#include "absl/strings/numbers.h"
#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "retriever_service/embed/bert_config.h"
#include "retriever_service/embed/bert_embedder.h"
#include "retriever_service/embed/hash_embedder.h"

namespace retro {
namespace {

constexpr int kThreadsMax = 1024;
constexpr std::string_view kHash = "hash:";

bool IsHash(const EmbedderSettings& settings) { return settings.embedder.starts_with(kHash); }

absl::StatusOr<int> HashDimension(const EmbedderSettings& settings) {
  int dimension = 0;
  if (!absl::SimpleAtoi(settings.embedder.substr(kHash.size()), &dimension) || dimension < 1) {
    return FieldError("--embedder", "hash:N needs a positive number of dimensions");
  }
  return dimension;
}

}  // namespace

void AddEmbedderFlags(CLI::App& app, EmbedderSettings& settings) {
  constexpr char kEmbedder[] = "Embedder";
  app.add_option("--embedder", settings.embedder,
                 "Folder of a BERT-family sentence encoder (config.json, model.safetensors, vocab.txt); hash:N for "
                 "vectors of N hashed numbers in tests")
      ->required()
      ->group(kEmbedder);
  app.add_option("--device", settings.device, "cpu, cuda or cuda:N")->capture_default_str()->group(kEmbedder);
  app.add_option("--dtype", settings.dtype, "Number format of the encoder's weights")
      ->check(CLI::IsMember({"fp16", "fp32"}))
      ->capture_default_str()
      ->group(kEmbedder);
  app.add_option("--threads", settings.threads, "Threads of the encoder; 0: one a core")
      ->check(CLI::Range(0, kThreadsMax))
      ->capture_default_str()
      ->group(kEmbedder);
}

absl::Status CheckEmbedder(const EmbedderSettings& settings) {
  if (IsHash(settings)) return HashDimension(settings).status();
  return ReadBertConfig(settings.embedder).status();
}

absl::StatusOr<std::unique_ptr<Embedder>> MakeEmbedder(const EmbedderSettings& settings) {
  if (IsHash(settings)) {
    RETRO_ASSIGN_OR_RETURN(const int dimension, HashDimension(settings));
    return std::make_unique<HashEmbedder>(dimension);
  }
  BertEncoderOptions options;
  options.device = settings.device;
  options.numbers = settings.dtype == "fp32" ? BertNumbers::kFp32 : BertNumbers::kFp16;
  options.threads = settings.threads;
  return BertEmbedder::Load(settings.embedder, options);
}

}  // namespace retro
