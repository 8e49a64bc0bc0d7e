#include "retriever_service/embed/bert_embedder.h"

#include <algorithm>
#include <filesystem>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

// [CLS] and [SEP].
constexpr int kSpecialTokens = 2;

absl::Status CheckVocabulary(const Tokenizer& tokenizer, const BertConfig& config) {
  if (tokenizer.bos_id() < 0 || tokenizer.eos_id() < 0) {
    return absl::InvalidArgumentError(StrCat(config.vocabulary_path(), ": has no [CLS] or no [SEP]"));
  }
  if (tokenizer.vocabulary_size() > config.vocabulary_size) {
    return absl::InvalidArgumentError(StrCat(config.vocabulary_path(), ": has ", tokenizer.vocabulary_size(),
                                             " entries, config.json's vocab_size is ", config.vocabulary_size));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<BertEmbedder>> BertEmbedder::Load(const std::string& folder,
                                                                 const BertEncoderOptions& options) {
  RETRO_ASSIGN_OR_RETURN(const BertConfig config, ReadBertConfig(folder));
  RETRO_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, LoadTokenizer(config.vocabulary_path()));
  RETRO_RETURN_IF_ERROR(CheckVocabulary(*tokenizer, config));
  RETRO_ASSIGN_OR_RETURN(auto encoder, BertEncoder::Load(folder, tokenizer->fingerprint(), options));
  return std::unique_ptr<BertEmbedder>(new BertEmbedder(std::move(tokenizer), std::move(encoder)));
}

BertEmbedder::BertEmbedder(std::shared_ptr<const Tokenizer> tokenizer, std::unique_ptr<BertEncoder> encoder)
    : tokenizer_(std::move(tokenizer)), encoder_(std::move(encoder)) {
  const BertConfig& config = encoder_->config();
  info_.name = std::filesystem::path(config.folder).lexically_normal().filename().string();
  info_.fingerprint = encoder_->fingerprint();
  info_.dimension = config.hidden_size;
  info_.max_tokens = config.max_tokens;
}

TokenSequence BertEmbedder::Encode(std::string_view text, TextKind kind) const {
  const BertConfig& config = encoder_->config();
  const std::string& prefix = kind == TextKind::kQuery ? config.query_prefix : config.passage_prefix;
  const size_t most = config.max_tokens - kSpecialTokens;
  TokenSequence sequence = {tokenizer_->bos_id()};
  for (const Token& token : tokenizer_->EncodeFirst(prefix.empty() ? text : StrCat(prefix, text), most)) {
    sequence.push_back(token.id);
  }
  sequence.push_back(tokenizer_->eos_id());
  return sequence;
}

absl::StatusOr<std::vector<float>> BertEmbedder::Embed(std::span<const TokenSequence> sequences) {
  return encoder_->Encode(sequences);
}

}  // namespace retro
