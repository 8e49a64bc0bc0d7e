// The readers of `retro ingest`: HTML, lines of JSON, declared encodings; and the filters that people write.
#include <sstream>

#include "cli/decoding_source.h"
#include "cli/document_json.h"
#include "cli/document_reader.h"
#include "cli/filter_expression.h"
#include "cli/html_text.h"
#include "cli/utf8.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() {
  return {
      "<html><head><title>A</title><meta charset=iso-8859-1></head><p>one<br><pre> x </pre><table><tr><td>1</table>",
      "<script>no</script><nav>no</nav><p>&eacute;&#8364;&#xD800;&bogus;</p><!-- c --><![CDATA[x]]>",
      R"({"id":"a","title":"t","text":"some text","metadata":{"lang":"en","year":2020,"w":1.5,"l":["a","b"]}})",
      R"({"text":"x","when":{"time":"2024-05-01T12:00:00Z"},"vectors":[[1,2.5]],"embedder_fingerprint":"00ff"})",
      R"(lang = "en" and year >= 2020 and not source in ("a", "b") and exists(tag))",
      "`odd key` between -1.5e3 and 2 or (id != 'x' and time(\"2024-05-01\") < x)"};
}

void FuzzOne(std::string_view input) {
  const std::string page = cli::RepairedUtf8(input);  // as DecodingSource does before
  cli::HtmlText html;
  html.Feed(std::string_view(page).substr(0, page.size() / 3));
  html.Feed(std::string_view(page).substr(page.size() / 3));
  html.Finish();
  const std::string text = html.TakeText();
  Require(cli::ValidUtf8Prefix(text) == text.size(), "the text of a page is no UTF-8");

  const auto parsed = cli::ParseDocumentJson(input);
  if (parsed.ok()) {
    const std::string line = cli::DocumentToJson(parsed->write.document());
    const auto again = cli::ParseDocumentJson(line);
    Require(again.ok(), "what was written as JSON is not read again");
    Require(cli::DocumentToJson(again->write.document()) == line, "a document changes by being written and read");
  }
  std::istringstream stream{std::string(input)};
  const cli::ReaderOptions options;
  const auto reader = cli::JsonlStreamReader(stream, options);
  size_t readings = 0;
  while (reader->Next().has_value()) Require(++readings <= input.size() + 1, "a reader does not end");

  static_cast<void>(cli::DeclaredEncoding(input, true));
  static_cast<void>(cli::ParseFilterExpression(input));
}

}  // namespace retro
