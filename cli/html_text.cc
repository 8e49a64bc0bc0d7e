#include "cli/html_text.h"

#include <libxml/HTMLparser.h>

#include <algorithm>
#include <array>
#include <utility>

namespace retro::cli {
namespace {

constexpr size_t kTitleBytesMax = 4096;  // the server's bound

template <size_t kSize>
bool IsOneOf(std::string_view name, const std::array<std::string_view, kSize>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array<std::string_view, 14> kLeftOut = {"script", "style",  "nav",      "noscript", "template",
                                                       "svg",    "math",   "iframe",   "object",   "select",
                                                       "button", "canvas", "textarea", "audio"};
constexpr std::array<std::string_view, 32> kBlocks = {
    "p",       "div",     "h1",      "h2",    "h3",         "h4",         "h5",      "h6",
    "ul",      "ol",      "dl",      "pre",   "blockquote", "section",    "article", "main",
    "header",  "footer",  "aside",   "table", "figure",     "figcaption", "form",    "fieldset",
    "address", "details", "summary", "hr",    "body",       "caption",    "center",  "title"};
constexpr std::array<std::string_view, 7> kLines = {"br", "li", "tr", "dt", "dd", "option", "legend"};
constexpr std::array<std::string_view, 2> kCells = {"td", "th"};

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f'; }

// What separates the text so far from what comes next; the strongest that was asked for wins.
enum class Gap { kNone, kSpace, kLine, kParagraph };

}  // namespace

struct HtmlText::State {
  htmlParserCtxtPtr parser = nullptr;
  htmlSAXHandler handler = {};
  std::string text;
  std::string title;
  std::string left_out;    // the element being left out, "" if none
  int left_out_depth = 0;  // how often it is open
  int pre_depth = 0;
  bool in_title = false;
  bool any_text = false;
  Gap gap = Gap::kNone;

  void AskFor(Gap wanted) { gap = std::max(gap, wanted); }

  void WriteGap() {
    if (any_text && gap != Gap::kNone) text += gap == Gap::kSpace ? " " : gap == Gap::kLine ? "\n" : "\n\n";
    gap = Gap::kNone;
    any_text = true;
  }

  void Start(std::string_view name) {
    if (!left_out.empty()) {
      if (name == left_out) ++left_out_depth;
      return;
    }
    if (IsOneOf(name, kLeftOut)) {
      left_out = name;
      left_out_depth = 1;
      AskFor(Gap::kSpace);
      return;
    }
    if (name == "title") in_title = title.empty();
    if (name == "pre") ++pre_depth;
    Border(name);
  }

  void End(std::string_view name) {
    if (!left_out.empty()) {
      if (name == left_out && --left_out_depth == 0) left_out.clear();
      return;
    }
    if (name == "title") in_title = false;
    if (name == "pre" && pre_depth > 0) --pre_depth;
    Border(name);
  }

  void Border(std::string_view name) {
    if (IsOneOf(name, kBlocks)) AskFor(Gap::kParagraph);
    if (IsOneOf(name, kLines)) AskFor(Gap::kLine);
    if (IsOneOf(name, kCells)) AskFor(Gap::kSpace);
  }

  void Characters(std::string_view piece) {
    if (!left_out.empty()) return;
    if (in_title) {
      if (title.size() + piece.size() <= kTitleBytesMax) title += piece;
      return;
    }
    if (pre_depth > 0 && !piece.empty()) {
      WriteGap();
      text += piece;
      return;
    }
    for (size_t at = 0; at < piece.size();) {
      const size_t begin = at;
      while (at < piece.size() && !IsSpace(piece[at])) ++at;
      if (at > begin) {
        WriteGap();
        text += piece.substr(begin, at - begin);
      }
      if (at < piece.size()) {
        AskFor(Gap::kSpace);
        ++at;
      }
    }
  }
};

namespace {

// libxml2 calls back with C strings; the states are ours.
template <typename State>
void OnStart(void* state, const xmlChar* name, const xmlChar**) {
  static_cast<State*>(state)->Start(reinterpret_cast<const char*>(name));
}
template <typename State>
void OnEnd(void* state, const xmlChar* name) {
  static_cast<State*>(state)->End(reinterpret_cast<const char*>(name));
}
template <typename State>
void OnCharacters(void* state, const xmlChar* text, int length) {
  static_cast<State*>(state)->Characters({reinterpret_cast<const char*>(text), static_cast<size_t>(length)});
}

}  // namespace

HtmlText::HtmlText() : state_(std::make_unique<State>()) {
  state_->handler.startElement = OnStart<State>;
  state_->handler.endElement = OnEnd<State>;
  state_->handler.characters = OnCharacters<State>;
  state_->handler.ignorableWhitespace = OnCharacters<State>;
  state_->handler.cdataBlock = nullptr;  // scripts and styles
  state_->parser =
      htmlCreatePushParserCtxt(&state_->handler, state_.get(), nullptr, 0, nullptr, XML_CHAR_ENCODING_UTF8);
  if (state_->parser != nullptr) {
    htmlCtxtUseOptions(state_->parser, HTML_PARSE_IGNORE_ENC | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                           HTML_PARSE_NONET | HTML_PARSE_RECOVER);
  }
}

HtmlText::~HtmlText() {
  if (state_->parser != nullptr) htmlFreeParserCtxt(state_->parser);
}

void HtmlText::Feed(std::string_view html) {
  if (state_->parser != nullptr) htmlParseChunk(state_->parser, html.data(), static_cast<int>(html.size()), 0);
}

void HtmlText::Finish() {
  if (state_->parser != nullptr) htmlParseChunk(state_->parser, nullptr, 0, 1);
}

std::string HtmlText::TakeText() { return std::exchange(state_->text, std::string()); }

std::string HtmlText::title() const {
  std::string joined;
  for (const char c : state_->title) {
    if (!IsSpace(c)) {
      joined += c;
    } else if (!joined.empty() && joined.back() != ' ') {
      joined += ' ';
    }
  }
  if (!joined.empty() && joined.back() == ' ') joined.pop_back();
  return joined;
}

}  // namespace retro::cli
