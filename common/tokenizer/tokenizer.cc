#include "common/tokenizer/tokenizer.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/tokenizer/sentencepiece_tokenizer.h"
#include "common/tokenizer/wordpiece.h"

namespace retro {
namespace {

absl::Status WithPath(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), StrCat(path, ": ", MessageOf(status)));
}

// Whether a tokenizer_config.json asks for the cased kind. Refuses settings that WordPieceTokenizer does not have.
absl::StatusOr<WordPieceTokenizer::Case> ParseCase(std::string_view config_text) {
  const nlohmann::json config = nlohmann::json::parse(config_text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const auto flag = [&config](const char* name, bool otherwise) {
    const auto entry = config.find(name);
    return entry != config.end() && entry->is_boolean() ? entry->get<bool>() : otherwise;
  };
  const bool lower = flag("do_lower_case", true);
  if (flag("strip_accents", lower) != lower) {
    return absl::InvalidArgumentError("strip_accents other than do_lower_case is not supported");
  }
  if (!flag("tokenize_chinese_chars", true)) {
    return absl::InvalidArgumentError("tokenize_chinese_chars = false is not supported");
  }
  return lower ? WordPieceTokenizer::Case::kUncased : WordPieceTokenizer::Case::kCased;
}

absl::StatusOr<WordPieceTokenizer::Case> CaseBeside(const std::filesystem::path& vocabulary) {
  const std::string path = (vocabulary.parent_path() / "tokenizer_config.json").string();
  const absl::StatusOr<std::string> config = ReadFile(path);
  if (absl::IsNotFound(config.status())) return WordPieceTokenizer::Case::kUncased;
  RETRO_RETURN_IF_ERROR(config.status());
  auto letter_case = ParseCase(*config);
  if (!letter_case.ok()) return WithPath(path, letter_case.status());
  return letter_case;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const std::string& path) {
  const std::filesystem::path file(path);
  const bool sentencepiece = file.extension() == ".model";
  if (!sentencepiece && file.filename() != "vocab.txt") {
    return absl::InvalidArgumentError(
        StrCat(path, ": a tokenizer is a SentencePiece file *.model or a WordPiece file vocab.txt"));
  }
  RETRO_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  if (sentencepiece) {
    auto tokenizer = SentencePieceTokenizer::Create(bytes);
    if (!tokenizer.ok()) return WithPath(path, tokenizer.status());
    return *std::move(tokenizer);
  }
  RETRO_ASSIGN_OR_RETURN(const WordPieceTokenizer::Case letter_case, CaseBeside(file));
  auto tokenizer = WordPieceTokenizer::Create(bytes, letter_case);
  if (!tokenizer.ok()) return WithPath(path, tokenizer.status());
  return *std::move(tokenizer);
}

}  // namespace retro
