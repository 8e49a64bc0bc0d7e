#include "cli/filter_lexer.h"

#include <cctype>
#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro::cli {
namespace {

bool IsWordStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsWordPart(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.'; }
bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  absl::StatusOr<FilterToken> Next() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    FilterToken token;
    token.column = at_ + 1;
    if (at_ == text_.size()) return token;
    const char c = text_[at_];
    if (c == '"' || c == '\'' || c == '`') return Quoted(std::move(token));
    if (IsDigit(c) || c == '-' || c == '+' || c == '.') return Number(std::move(token));
    if (IsWordStart(c)) return Word(std::move(token));
    return Symbol(std::move(token));
  }

 private:
  absl::StatusOr<FilterToken> Quoted(FilterToken token) {
    const char quote = text_[at_++];
    token.kind = quote == '`' ? FilterToken::kQuotedField : FilterToken::kText;
    while (at_ < text_.size() && text_[at_] != quote) {
      char c = text_[at_++];
      if (c == '\\' && quote != '`') {
        if (at_ == text_.size()) break;
        const char escaped = text_[at_++];
        c = escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
      }
      token.text += c;
    }
    if (at_ >= text_.size())
      return FilterError(token.column, StrCat("this ", std::string(1, quote), " is never closed"));
    ++at_;
    return token;
  }

  absl::StatusOr<FilterToken> Number(FilterToken token) {
    token.kind = FilterToken::kNumber;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      const bool sign_of_exponent =
          (c == '-' || c == '+') && (token.text.empty() || token.text.back() == 'e' || token.text.back() == 'E');
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && !sign_of_exponent) break;
      token.text += c;
      ++at_;
    }
    return token;
  }

  absl::StatusOr<FilterToken> Word(FilterToken token) {
    token.kind = FilterToken::kWord;
    while (at_ < text_.size() && IsWordPart(text_[at_])) token.text += text_[at_++];
    return token;
  }

  absl::StatusOr<FilterToken> Symbol(FilterToken token) {
    token.kind = FilterToken::kSymbol;
    for (const std::string_view symbol : {"==", "!=", "<=", ">=", "=", "<", ">", "(", ")", ","}) {
      if (text_.substr(at_, symbol.size()) != symbol) continue;
      at_ += symbol.size();
      token.text = std::string(symbol == "==" ? symbol.substr(1) : symbol);
      return token;
    }
    return FilterError(token.column, StrCat("'", text_.substr(at_, 1), "' has no meaning here"));
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

absl::Status FilterError(size_t column, std::string_view message) {
  return absl::InvalidArgumentError(StrCat("filter, column ", column, ": ", message));
}

absl::StatusOr<std::vector<FilterToken>> CutFilterTokens(std::string_view expression) {
  std::vector<FilterToken> tokens;
  Lexer lexer(expression);
  do {
    RETRO_ASSIGN_OR_RETURN(FilterToken token, lexer.Next());
    tokens.push_back(std::move(token));
  } while (tokens.back().kind != FilterToken::kEnd);
  return tokens;
}

}  // namespace retro::cli
