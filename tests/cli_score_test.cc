// `retro score` against a fake generator: what is asked for, how long texts are cut, the sums.
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cli/exit_code.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/cli_fixture.h"

namespace retro::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class CliScoreTest : public CliTest {
 protected:
  // The exit code; what was printed is in out_ and err_.
  int Score(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.insert(arguments.begin(), "score");
    Result result = Run(arguments, input);
    out_ = std::move(result.out);
    err_ = std::move(result.err);
    return result.code;
  }
  std::vector<nlohmann::json> Lines() const {
    std::vector<nlohmann::json> lines;
    std::istringstream text(out_);
    for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }
  // What was asked to be scored, joined.
  std::string Asked() const {
    std::string text;
    for (const gen::ScoreRequest& request : generator_.score_requests) text += request.items(0).continuation_text();
    return text;
  }
  static std::string Words(size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += StrCat("word", text.size(), " ");
    return text;
  }

  std::string out_;
  std::string err_;
};

TEST_F(CliScoreTest, ATextAfterItsContext) {
  EXPECT_EQ(Score({"abcdefgh", "--context", "before it", "--tokens"}), kOk) << err_;
  ASSERT_THAT(generator_.score_requests, SizeIs(1));
  EXPECT_EQ(generator_.score_requests[0].items(0).context_text(), "before it");
  EXPECT_EQ(generator_.score_requests[0].items(0).continuation_text(), "abcdefgh");
  // Two tokens of one bit each for eight bytes.
  EXPECT_THAT(out_, AllOf(HasSubstr("     1   -0.6931 *  \"abcd\"\n"), HasSubstr("     2   -0.6931    \"efgh\"\n"),
                          HasSubstr("text 1: 0.2500 bits a byte, 8 bytes; perplexity 2.00 a token, 2 tokens, 50% of "
                                    "them the likeliest; 1 chunks with neighbours\n")));
}

TEST_F(CliScoreTest, RetrievalIsWhatItIsToldToBe) {
  EXPECT_EQ(Score({"-", "--k", "3", "--alignment", "end-of-context", "--exclude", "d", "--gate", "0.5", "--collection",
                   "c", "--go-on-without"},
                  "from standard input\n"),
            kOk)
      << err_;
  const gen::Retrieval& retrieval = generator_.score_requests[0].retrieval();
  EXPECT_EQ(generator_.score_requests[0].items(0).continuation_text(), "from standard input");
  EXPECT_EQ(retrieval.k(), 3U);
  EXPECT_EQ(retrieval.alignment(), gen::ALIGNMENT_END_OF_PROMPT);
  EXPECT_EQ(retrieval.exclude_document_ids(0), "d");
  EXPECT_EQ(retrieval.gate(), 0.5F);
  EXPECT_EQ(retrieval.collection(), "c");
  EXPECT_EQ(retrieval.on_failure(), gen::FAILURE_POLICY_GO_ON_WITHOUT);
  EXPECT_EQ(Score({"x", "--no-retrieval"}), kOk);
  EXPECT_TRUE(generator_.score_requests[1].retrieval().has_enabled());
  EXPECT_FALSE(generator_.score_requests[1].retrieval().enabled());
}

TEST_F(CliScoreTest, ALongTextIsScoredInPiecesEachAfterTheEndOfWhatPrecedesIt) {
  const std::string text = Words(5000);
  EXPECT_EQ(Score({"--file", Put("a.txt", text), "--json"}), kOk) << err_;
  EXPECT_EQ(Asked(), text);
  const std::vector<nlohmann::json> lines = Lines();
  int32_t preceding = 0;
  for (size_t i = 0; i < generator_.score_requests.size(); ++i) {
    const gen::ScoreItem& item = generator_.score_requests[i].items(0);
    // At most half of the context of 256, and it ends with the last token before.
    EXPECT_EQ(item.context_tokens().ids_size(), std::min(preceding, 128));
    if (i > 0) {
      EXPECT_EQ(item.context_tokens().ids().rbegin()[0], preceding);
    }
    EXPECT_EQ(lines[i]["event"], "piece");
    EXPECT_EQ(lines[i]["tokens"].size(), lines[i]["logprobs"].size());
    preceding += static_cast<int32_t>(lines[i]["tokens"].size());
  }
  EXPECT_GT(preceding, 1000);
  const nlohmann::json& summary = lines.back();
  EXPECT_EQ(summary["event"], "summary");
  EXPECT_EQ(summary["bytes"], text.size());
  EXPECT_EQ(summary["tokens"], preceding);
  EXPECT_NEAR(summary["bits_per_byte"].get<double>(), preceding / static_cast<double>(text.size()), 1e-9);
}

TEST_F(CliScoreTest, WhatDoesNotFitIsCutFurther) {
  generator_.bytes_per_token = 1;  // a piece of 256 bytes is 256 tokens, with 128 before them too many
  const std::string text = Words(1500);
  EXPECT_EQ(Score({"--file", Put("a.txt", text), "--json"}), kOk) << err_;
  const nlohmann::json summary = Lines().back();
  EXPECT_EQ(summary["bytes"], text.size());
  EXPECT_EQ(summary["tokens"], text.size());
  EXPECT_NEAR(summary["bits_per_byte"].get<double>(), 1, 1e-9);
}

TEST_F(CliScoreTest, EachDocumentStandsAloneAndAllAreSummedUp) {
  const std::string lines = Put("a.jsonl", "{\"id\":\"x\",\"text\":\"abcd\"}\n{\"id\":\"y\",\"text\":\"efghijkl\"}\n");
  EXPECT_EQ(Score({"--file", lines, "--file", (folder_ / "missing.txt").string()}), kFailed);
  ASSERT_THAT(generator_.score_requests, SizeIs(2));
  EXPECT_EQ(generator_.score_requests[1].items(0).context_tokens().ids_size(), 0);
  EXPECT_THAT(out_, AllOf(HasSubstr("x: 0.2500 bits a byte, 4 bytes"), HasSubstr("y: 0.2500 bits a byte, 8 bytes"),
                          HasSubstr("all 2 texts: 0.2500 bits a byte, 12 bytes")));
  EXPECT_THAT(err_, HasSubstr("skipped: " + (folder_ / "missing.txt").string()));
}

TEST_F(CliScoreTest, AFailureInTheMiddleTellsWhatWasScored) {
  generator_.score_failure = {grpc::StatusCode::UNAVAILABLE, "gone"};
  EXPECT_EQ(Score({"--file", Put("a.txt", Words(5000))}), kUnreachable);
  EXPECT_THAT(err_, AllOf(HasSubstr("cannot be reached"), HasSubstr("of what was scored before that")));
  EXPECT_THAT(out_, HasSubstr("a.txt: "));
  generator_.score_failure = grpc::Status::OK;
}

TEST_F(CliScoreTest, WhiteSpaceIsNoText) {
  EXPECT_EQ(Score({" \n ", "abcd"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("skipped: text 1: it is white space alone"));
  EXPECT_THAT(out_, HasSubstr("text 2: 0.2500 bits a byte"));
}

TEST_F(CliScoreTest, WrongCommandLines) {
  EXPECT_EQ(Score({}), kUsage);
  EXPECT_THAT(err_, HasSubstr("nothing to score: give a TEXT or a --file"));
  EXPECT_EQ(Score({""}), kUsage);
  EXPECT_EQ(Score({"caf\xe9"}), kUsage);
  EXPECT_THAT(err_, HasSubstr("no UTF-8"));
  EXPECT_EQ(Score({"-"}, "caf\xe9"), kUsage);
  EXPECT_THAT(err_, HasSubstr("no UTF-8 at byte 3"));
  EXPECT_THAT(generator_.score_requests, SizeIs(0));
}

}  // namespace
}  // namespace retro::cli
