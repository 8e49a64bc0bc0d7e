// The visible text of an HTML page, by libxml2's HTML parser, in pieces.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace retro::cli {

// Block elements become paragraphs (a blank line between), table cells and line breaks are kept apart, white space is
// joined except in <pre>; scripts, styles, navigation, forms' controls and the head are left out. Not thread-safe.
class HtmlText {
 public:
  HtmlText();
  ~HtmlText();
  HtmlText(const HtmlText&) = delete;
  HtmlText& operator=(const HtmlText&) = delete;

  // The next piece of the page, in UTF-8 whatever it declares.
  void Feed(std::string_view html);
  void Finish();

  // The text since the last call.
  std::string TakeText();
  // The content of <title>, as far as it was seen.
  std::string title() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retro::cli
