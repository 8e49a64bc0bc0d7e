// The engine with its thread: what the caller of a generation sees.
#include "generator_service/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "common/base/error.h"
#include "generator_service/engine/model_runner.h"
#include "tests/fake_neighbours.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

// Its tokens are words: a text of them has spaces in between.
class WordTokenizer : public ByteTokenizer {
 public:
  std::string Decode(std::span<const TokenId> ids) const override {
    std::string text;
    for (const TokenId id : ids) {
      if (!text.empty()) text += " ";
      text += ByteTokenizer::Decode(std::vector<TokenId>{id});
    }
    return text;
  }
  bool lossless() const override { return false; }
};

// Takes its time over each token of a prompt, on the engine's thread.
class SlowPromptSink : public RecordingSink {
 public:
  explicit SlowPromptSink(milliseconds token_time) : token_time_(token_time) {}
  void OnToken(TokenOutput output) override {
    if (output.prompt) std::this_thread::sleep_for(token_time_);
    RecordingSink::OnToken(std::move(output));
  }

 private:
  const milliseconds token_time_;
};

class EngineTest : public testing::Test {
 protected:
  void StartEngine(const SchedulerLimits& limits = {}) { StartEngine(limits, tokenizer_); }
  void StartEngine(const SchedulerLimits& limits, const Tokenizer& tokenizer) {
    EngineOptions options;
    options.facts = TinyFacts(*model_, tokenizer);
    options.limits = limits;
    options.on_step = on_step_;
    engine_ = std::make_unique<Engine>(options, std::make_unique<ModelRunner>(*model_), source_);
  }

  static GenerationRequest Request(std::string_view prompt, int64_t max_tokens) {
    GenerationRequest request;
    request.prompt = Ids(prompt);
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    request.sampling.logit_bias = {{3, -100.0F}};  // no end of text
    request.retrieval.enabled = true;
    request.retrieval.offset = static_cast<int64_t>(prompt.size()) % 8;
    request.retrieval.timeout_ms = milliseconds(60'000);
    request.arrival = Clock::now();
    return request;
  }

  std::shared_ptr<RecordingSink> Run(GenerationRequest request) {
    auto sink = std::make_shared<RecordingSink>();
    const auto id = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(id.ok()) << id.status();
    if (id.ok()) sink->AwaitEnd();
    return sink;
  }

  const ByteTokenizer tokenizer_;
  const WordTokenizer words_;
  const std::unique_ptr<RetroModel> model_ = MakeTinyModel();  // the engine's thread's
  const std::unique_ptr<RetroModel> alone_ = MakeTinyModel();  // the test's
  FakeSource source_;
  std::function<void(const StepReport&)> on_step_;  // of the next engine
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, GivesTheTokensOfThePlainLoop) {
  StartEngine();
  const GenerationRequest request = Request("a prompt of some words", 40);
  const auto sink = Run(request);
  ASSERT_TRUE(sink->finish().has_value()) << sink->error();
  EXPECT_EQ(sink->Generated(), GenerateAlone(*alone_, tokenizer_, request));
}

TEST_F(EngineTest, ManyAtOnceGetWhatTheyGetAlone) {
  StartEngine({.sessions_max = 4, .waiting_max = 60});
  std::vector<GenerationRequest> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 30; ++i) {
    requests.push_back(Request("prompt number " + std::to_string(i % 10), 5 + i % 15));
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(engine_->Submit(requests.back(), sinks.back()).ok());
  }
  for (size_t i = 0; i < sinks.size(); ++i) {
    sinks[i]->AwaitEnd();
    EXPECT_EQ(sinks[i]->Generated(), GenerateAlone(*alone_, tokenizer_, requests[i])) << i;
  }
}

TEST_F(EngineTest, OneLookupForThePromptAndOneForEachChunkThatIsCompletedAndUsed) {
  StartEngine();
  const auto sink = Run(Request("nineteen characters", 24));  // 3 | 8 | 8 | 8 generated | 8 generated | 8, never used
  ASSERT_EQ(sink->Generated().size(), 24U);
  const auto requests = source_.requests();
  ASSERT_EQ(requests.size(), 3U);
  ASSERT_EQ(requests[0].chunks.size(), 3U);
  EXPECT_EQ(requests[0].chunks[0].tokens, Ids("nin"));
  EXPECT_EQ(requests[0].chunks[2].tokens, Ids("aracters"));
  ASSERT_EQ(requests[1].chunks.size(), 1U);
  EXPECT_EQ(requests[1].chunks[0].chunk, 3);
  const std::vector<TokenId> generated = sink->Generated();
  EXPECT_EQ(requests[1].chunks[0].tokens, std::vector<TokenId>(generated.begin(), generated.begin() + 8));
  EXPECT_EQ(sink->finish()->lookups, 3);

  const auto chunks = sink->chunks();
  ASSERT_EQ(chunks.size(), 5U);
  EXPECT_EQ(chunks[0].token_begin, 0);
  EXPECT_EQ(chunks[0].token_end, 3);
  EXPECT_EQ(chunks[4].token_begin, 27);
  EXPECT_EQ(chunks[4].token_end, 35);
}

TEST_F(EngineTest, InThePapersAlignmentAShortPromptHasNoNeighbours) {
  StartEngine();
  GenerationRequest request = Request("short", 2);
  request.retrieval.offset = 0;
  const auto sink = Run(request);
  EXPECT_EQ(sink->Generated().size(), 2U);
  EXPECT_TRUE(source_.requests().empty());
  EXPECT_TRUE(sink->chunks().empty());
}

TEST_F(EngineTest, TextsTogetherAreTheDecodedIds) {
  StartEngine();
  GenerationRequest request = Request("bytes of all kinds \xF0\x9F\x98", 80);
  request.sampling.logit_bias.clear();
  request.sampling.temperature = 5;
  request.sampling.top_p = 1;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    request.sampling.seed = seed;
    const auto sink = Run(request);
    TextAssembler whole({});
    std::string expected = whole.Append(tokenizer_.Decode(sink->Generated())).text;
    expected += whole.Finish();
    EXPECT_EQ(sink->Text(), expected);
    std::string raw;
    for (const TokenOutput& token : sink->tokens()) raw += token.raw;
    EXPECT_EQ(raw, tokenizer_.Decode(sink->Generated()));
  }
}

TEST_F(EngineTest, StopStringsEndTheTextBeforeThem) {
  StartEngine();
  GenerationRequest request = Request("stop somewhere", 40);
  for (TokenId id = 0; id < tokenizer_.vocabulary_size(); ++id) {
    if (id < ByteTokenizer::Id('a') || id > ByteTokenizer::Id('z'))
      request.sampling.logit_bias.emplace_back(id, -100.0F);
  }
  const std::string text = Run(request)->Text();
  ASSERT_EQ(text.size(), 40U);
  const std::string stop = text.substr(10, 3);
  request.stop_strings = {stop};
  const auto sink = Run(request);
  EXPECT_EQ(sink->finish()->cause, FinishCause::kStop);
  EXPECT_EQ(sink->finish()->stopped_by, stop);
  EXPECT_EQ(sink->Text(), text.substr(0, text.find(stop)));
}

TEST_F(EngineTest, StopIdsAndEosEndAfterThem) {
  StartEngine();
  GenerationRequest request = Request("stop at an id", 30);
  const std::vector<TokenId> all = GenerateAlone(*alone_, tokenizer_, request);
  request.stop_ids = {all[6]};
  const auto sink = Run(request);
  EXPECT_EQ(sink->finish()->cause, FinishCause::kStop);
  EXPECT_EQ(sink->Generated().back(), all[6]);

  GenerationRequest ends = Request("end of text", 30);
  ends.sampling.logit_bias = {{tokenizer_.eos_id(), 100.0F}};
  const auto ended = Run(ends);
  EXPECT_EQ(ended->finish()->cause, FinishCause::kEos);
  EXPECT_THAT(ended->Generated(), testing::ElementsAre(tokenizer_.eos_id()));
}

TEST_F(EngineTest, EchoSendsThePromptWithItsLogprobs) {
  StartEngine();
  GenerationRequest request = Request("echo this prompt", 4);
  request.echo_from = 0;
  const auto sink = Run(request);
  const auto tokens = sink->tokens();
  ASSERT_EQ(tokens.size(), 20U);
  EXPECT_EQ(tokens[0].token.logprob, 0);
  std::string prompt;
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_TRUE(tokens[i].prompt);
    EXPECT_EQ(tokens[i].position, static_cast<int64_t>(i));
    EXPECT_EQ(tokens[i].token.logprob<0, i> 0);
    prompt += tokens[i].text;
  }
  EXPECT_EQ(prompt, "echo this prompt");
  EXPECT_FALSE(tokens[16].prompt);
}

TEST_F(EngineTest, TheFirstScoredTokensBytesFollowFromTheTokenBeforeIt) {
  StartEngine({}, words_);
  GenerationRequest request = Request("abcdef", 0);
  request.echo_from = 4;
  std::vector<std::string> raw;
  for (const TokenOutput& token : Run(request)->tokens()) raw.push_back(token.raw);
  EXPECT_THAT(raw, testing::ElementsAre(" e", " f"));
}

// A generation's own log-probabilities are those of scoring the same text: two ways through the engine, one number.
TEST_F(EngineTest, ScoringAgreesWithGenerating) {
  StartEngine({.prefill_tokens_max = 5});
  const GenerationRequest request = Request("score me twice", 20);
  const auto generated = Run(request);
  GenerationRequest score = request;
  for (const TokenId id : generated->Generated()) score.prompt.push_back(id);
  score.max_tokens = 0;
  score.echo_from = static_cast<int64_t>(request.prompt.size());
  score.sampling.top_logprobs = 1;
  const auto scored = Run(score);
  const auto one = generated->tokens();
  const auto other = scored->tokens();
  ASSERT_EQ(one.size(), other.size());
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].position, other[i].position);
    EXPECT_EQ(one[i].token.id, other[i].token.id);
    EXPECT_NEAR(one[i].token.logprob, other[i].token.logprob, 1e-3);
    EXPECT_EQ(other[i].token.top[0].id, other[i].token.id);  // it was chosen greedily
  }
}

// What is made of a step's logits takes time from everybody too: a prompt's pieces are cut to that as well.
TEST_F(EngineTest, AnEchoedPromptsPiecesAreCutToTheTimeOfItsScoring) {
  GenerationRequest decodes = Request("a", 120);
  decodes.retrieval.enabled = false;
  GenerationRequest echoes = Request(std::string(60, 'x'), 1);
  echoes.retrieval.enabled = false;
  echoes.echo_from = 0;
  const auto prompt = std::make_shared<SlowPromptSink>(milliseconds(20));
  std::vector<int64_t> steps;  // tokens of each; the engine's thread's
  on_step_ = [&](const StepReport& step) {
    if (step.sessions == 0) return;
    steps.push_back(step.tokens);
    if (steps.size() != 3) return;
    EXPECT_TRUE(engine_->Submit(echoes, prompt).ok());  // while the other one decodes
  };
  StartEngine();
  ASSERT_TRUE(engine_->Submit(decodes, std::make_shared<RecordingSink>()).ok());
  prompt->AwaitEnd();
  engine_.reset();
  EXPECT_TRUE(prompt->finish().has_value()) << prompt->error();
  EXPECT_GE(std::ranges::count_if(steps, [](int64_t tokens) { return tokens > 1; }), 12);  // not 8, 32 and the rest
}

TEST_F(EngineTest, AttributionGivesSharesThatAddUpToOne) {
  StartEngine();
  GenerationRequest request = Request("attribute", 40);
  request.attribution = true;
  const auto sink = Run(request);
  size_t with_neighbours = 0;
  for (const TokenOutput& token : sink->tokens()) {
    if (token.attributions.empty()) continue;
    ++with_neighbours;
    float sum = 0;
    for (const NeighbourAttribution& one : token.attributions) sum += one.attention;
    EXPECT_NEAR(sum, 1, 1e-4);
  }
  EXPECT_GT(with_neighbours, 8U);
}

TEST_F(EngineTest, AFailedLookupEndsTheCallOrGoesOnAndSaysSo) {
  StartEngine();
  source_.Hold(true);
  for (const FailurePolicy policy : {FailurePolicy::kFail, FailurePolicy::kGoOnWithout}) {
    GenerationRequest request = Request("retriever is down", 3);
    request.retrieval.on_failure = policy;
    auto sink = std::make_shared<RecordingSink>();
    ASSERT_TRUE(engine_->Submit(request, sink).ok());
    while (!source_.Answer(absl::UnavailableError("127.0.0.1:1 refused"))) std::this_thread::yield();
    sink->AwaitEnd();
    if (policy == FailurePolicy::kFail) {
      EXPECT_EQ(sink->error().code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(ReasonOf(sink->error()), Reason::kRetrievalFailed);
      EXPECT_THAT(std::string(sink->error().message()), testing::HasSubstr("127.0.0.1:1 refused"));
    } else {
      EXPECT_EQ(sink->Generated().size(), 3U);
      ASSERT_EQ(sink->chunks().size(), 3U);
      EXPECT_EQ(sink->chunks()[0].found.degradation, Degradation::kUnavailable);
      EXPECT_EQ(sink->chunks()[0].found.degradation_message, "127.0.0.1:1 refused");
    }
  }
}

TEST_F(EngineTest, PastTheBoundACallIsRefusedAtOnceAndACancelFreesItsPlace) {
  StartEngine({.sessions_max = 1, .waiting_max = 1});
  source_.Hold(true);
  auto first = std::make_shared<RecordingSink>();
  auto second = std::make_shared<RecordingSink>();
  const auto id = engine_->Submit(Request("holds the place", 5), first);
  ASSERT_TRUE(id.ok());
  GenerationRequest plain = Request("waits", 5);
  plain.retrieval.enabled = false;
  ASSERT_TRUE(engine_->Submit(plain, second).ok());
  const auto refused = engine_->Submit(plain, std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RetryAfterOf(refused.status()).has_value());
  EXPECT_FALSE(second->ended());
  engine_->Cancel(*id);
  second->AwaitEnd();
  EXPECT_EQ(first->error().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(second->Generated().size(), 5U);
}

TEST_F(EngineTest, ADrainCutsWhatStillRunsAtItsDeadline) {
  StartEngine();
  source_.Hold(true);
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("never answered", 5), sink).ok());
  engine_->Drain(Clock::now() + milliseconds(20));
  EXPECT_EQ(engine_->Submit(Request("too late", 5), sink).status().code(), absl::StatusCode::kUnavailable);
  sink->AwaitEnd();
  ASSERT_TRUE(sink->finish().has_value());
  EXPECT_EQ(sink->finish()->cause, FinishCause::kDrained);
  EXPECT_EQ(sink->finish()->tokens, Ids("never answered"));
}

TEST_F(EngineTest, AnswersMayComeAfterTheEngineIsGone) {
  StartEngine();
  source_.Hold(true);
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("late answer", 5), sink).ok());
  while (source_.held() == 0) std::this_thread::yield();
  engine_.reset();
  EXPECT_EQ(sink->finish()->cause, FinishCause::kDrained);
  EXPECT_FALSE(source_.cancelled().empty());
  EXPECT_TRUE(source_.AnswerMadeUp());
}

}  // namespace
}  // namespace retro
