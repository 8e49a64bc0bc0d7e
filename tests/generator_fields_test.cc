// The fields of Generate's request and of its events, over gRPC: each is honoured, and refused by name where it is
// wrong.
#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>

#include "common/base/error.h"
#include "tests/generator_fixture.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;
using testing::HasSubstr;
using testing::Not;

class GeneratorFieldsTest : public GeneratorServiceTest {};

TEST_F(GeneratorFieldsTest, EverySettingOfTheSearchIsPassedOn) {
  Serve();
  auto request = Request("search settings", 2);
  auto* retrieval = request.mutable_retrieval();
  retrieval->set_max_distance(0.75F);
  retrieval->set_allow_partial(true);
  retrieval->mutable_effort()->set_level(0.25F);
  retrieval->mutable_filter()->mutable_exists()->mutable_field()->set_metadata_key("lang");
  ASSERT_TRUE(Generate(request).status.ok());
  const auto search = retriever_.requests().at(0);
  EXPECT_EQ(search.max_distance(), 0.75F);
  EXPECT_TRUE(search.allow_partial());
  EXPECT_EQ(search.effort().level(), 0.25F);
  EXPECT_EQ(search.filter().SerializeAsString(), retrieval->filter().SerializeAsString());
  retrieval->set_collection("elsewhere");  // which the store does not name
  ASSERT_TRUE(Generate(request).status.ok());
  EXPECT_EQ(retriever_.requests().back().collection(), "elsewhere");
}

TEST_F(GeneratorFieldsTest, TheGateScalesWhatTheNeighboursAdd) {
  Serve();
  auto request = Request("does the gate matter", 30);
  const Stream open = Generate(request);
  request.mutable_retrieval()->set_gate(1);
  EXPECT_EQ(Generate(request).Ids(), open.Ids());  // the model's own
  request.mutable_retrieval()->set_gate(0);
  const Stream closed = Generate(request);
  EXPECT_EQ(closed.retrievals.size(), open.retrievals.size());
  request.mutable_retrieval()->set_enabled(false);
  EXPECT_EQ(Generate(request).Ids(), closed.Ids());
  EXPECT_NE(closed.Ids(), open.Ids());
}

TEST_F(GeneratorFieldsTest, EchoTopLogprobsAndAttribution) {
  Serve();
  auto request = Request("sixteen letters!", 10);
  request.set_echo(true);
  request.set_top_logprobs(3);
  request.set_attribution(true);
  const Stream run = Generate(request);
  ASSERT_EQ(run.tokens.size(), 26U);
  std::string prompt;
  for (size_t i = 0; i < 26; ++i) {
    const pb::TokenEvent& token = run.tokens[i];
    EXPECT_EQ(token.position(), i);
    EXPECT_EQ(token.prompt(), i < 16);
    if (i < 16) prompt += token.text();
    if (i == 0) continue;  // nothing predicts it
    ASSERT_EQ(token.top_logprobs_size(), 3);
    EXPECT_GE(token.top_logprobs(0).logprob(), token.top_logprobs(1).logprob());
    EXPECT_GE(token.top_logprobs(0).logprob(), token.logprob());
    ASSERT_EQ(token.attributions_size(), i < 16 ? 0 : 2);
    if (i < 16) continue;
    EXPECT_NEAR(token.attributions(0).attention() + token.attributions(1).attention(), 1, 1e-4);
    EXPECT_EQ(token.attributions(1).neighbour(), 1U);
  }
  EXPECT_EQ(prompt, "sixteen letters!");
}

TEST_F(GeneratorFieldsTest, ARunOfTokensThatStandsInANeighbourIsCounted) {
  Serve();
  auto request = Request("a prompt.", 7);
  request.set_attribution(true);
  request.mutable_sampling()->set_temperature(0);
  for (const char letter : std::string("abxy"))  // all that it can say
    (*request.mutable_sampling()->mutable_logit_bias())[ByteTokenizer::Id(letter)] = 100;
  request.mutable_retrieval()->set_offset(1);
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  given->set_chunk_number(1);
  given->add_neighbours()->mutable_chunk()->set_text("xabyabcd");
  const Stream run = Generate(request);
  std::string text;
  for (const auto& token : run.tokens) text += token.text();
  std::vector<uint32_t> runs;
  runs.reserve(run.tokens.size());
  for (const auto& token : run.tokens) runs.push_back(token.attributions(0).shared_run());
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string so_far = "a prompt." + text.substr(0, i + 1);
    uint32_t longest = 0;
    for (uint32_t length = 1; length <= 8; ++length) {
      if (std::string("xabyabcd").find(so_far.substr(so_far.size() - length)) != std::string::npos) longest = length;
    }
    EXPECT_EQ(runs[i], longest) << text;
  }
  EXPECT_THAT(runs, testing::Contains(testing::Gt(0U))) << text;
}

TEST_F(GeneratorFieldsTest, StopsEndTheGeneration) {
  Serve();
  auto request = Request("until it stops", 60);
  for (int id = 0; id < 260; ++id) {
    if (id < ByteTokenizer::Id('a') || id > ByteTokenizer::Id('z'))
      (*request.mutable_sampling()->mutable_logit_bias())[id] = -100;
  }
  const Stream whole = Generate(request);
  const std::string text = whole.Text();
  ASSERT_EQ(text.size(), 60U);
  request.add_stop_strings(text.substr(20, 4));
  const Stream by_text = Generate(request);
  EXPECT_EQ(by_text.finish.reason(), pb::FINISH_REASON_STOP);
  EXPECT_EQ(by_text.finish.stopped_by(), text.substr(20, 4));
  EXPECT_EQ(by_text.Text(), text.substr(0, text.find(text.substr(20, 4))));
  request.clear_stop_strings();
  request.add_stop_ids(whole.tokens[9].id());
  const Stream by_id = Generate(request);
  EXPECT_EQ(by_id.finish.reason(), pb::FINISH_REASON_STOP);
  EXPECT_EQ(by_id.tokens.back().id(), whole.tokens[9].id());
  request.clear_stop_ids();
  (*request.mutable_sampling()->mutable_logit_bias())[3] = 100;
  EXPECT_EQ(Generate(request).finish.reason(), pb::FINISH_REASON_EOS);
}

TEST_F(GeneratorFieldsTest, AlignmentDecidesWhereThePromptsChunksEnd) {
  Serve();
  auto request = Request("0123456789", 3);
  EXPECT_EQ(Generate(request).retrievals.size(), 2U);  // 2 | 8
  request.mutable_retrieval()->set_alignment(pb::ALIGNMENT_PAPER);
  const Stream paper = Generate(request);
  ASSERT_EQ(paper.retrievals.size(), 1U);  // 8 | 2 ...
  EXPECT_EQ(paper.retrievals[0].token_end(), 8U);
  request.set_text("short");
  EXPECT_TRUE(Generate(request).retrievals.empty());
  request.mutable_retrieval()->set_offset(5);
  EXPECT_EQ(Generate(request).retrievals.size(), 1U);
}

TEST_F(GeneratorFieldsTest, NeighboursMatterAndGivenOnesAreAppendedTo) {
  Serve();
  auto request = Request("does it matter", 30);
  const Stream with = Generate(request);
  request.mutable_retrieval()->set_enabled(false);
  const Stream without = Generate(request);
  EXPECT_TRUE(without.retrievals.empty());
  EXPECT_NE(with.Ids(), without.Ids());

  request.mutable_retrieval()->set_enabled(true);
  request.mutable_retrieval()->set_neighbour_mode(pb::NEIGHBOUR_MODE_APPEND);
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  given->set_chunk_number(0);
  given->add_neighbours()->mutable_chunk()->set_text("my own, and longer than eight");
  const Stream appended = Generate(request);
  ASSERT_TRUE(appended.status.ok()) << appended.status;
  const auto& shown = appended.retrievals[0].neighbours();
  ASSERT_EQ(shown.neighbours_size(), 2);  // k in all
  EXPECT_EQ(shown.neighbours(0).chunk().token_ids_size(), 8);
  EXPECT_EQ(shown.neighbours(1).document_id(), "doc0");
}

struct BadRequest {
  std::string field;
  std::function<void(pb::GenerateRequest&)> spoil;
};

// The only neighbour that the request gives, with a text.
retriever::v1::Neighbour& Given(pb::GenerateRequest& request) {
  pb::Retrieval& retrieval = *request.mutable_retrieval();
  if (retrieval.neighbours().empty()) retrieval.add_neighbours()->add_neighbours()->mutable_chunk()->set_text("given");
  return *retrieval.mutable_neighbours(0)->mutable_neighbours(0);
}

std::vector<BadRequest> BadPromptsAndSampling() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return {
      {"prompt", [](auto& r) { r.clear_prompt(); }},
      {"text", [](auto& r) { r.set_text(""); }},
      {"text", [](auto& r) { r.set_text(std::string(200, 'x')); }},
      {"text", [](auto& r) { r.set_text(std::string(1 << 20, 'x')); }},
      {"tokens.ids", [](auto& r) { r.mutable_tokens(); }},
      {"tokens.ids[1]", [](auto& r) { r.mutable_tokens()->add_ids(5), r.mutable_tokens()->add_ids(260); }},
      {"tokens.ids[0]", [](auto& r) { r.mutable_tokens()->add_ids(-1); }},
      {"max_tokens", [](auto& r) { r.set_max_tokens(0); }},
      {"max_tokens", [](auto& r) { r.set_max_tokens(4'000'000'000U); }},
      {"sampling.temperature", [](auto& r) { r.mutable_sampling()->set_temperature(-1); }},
      {"sampling.temperature", [nan](auto& r) { r.mutable_sampling()->set_temperature(nan); }},
      {"sampling.top_p", [](auto& r) { r.mutable_sampling()->set_top_p(0); }},
      {"sampling.top_p", [](auto& r) { r.mutable_sampling()->set_top_p(1.5F); }},
      {"sampling.repetition_penalty", [](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); }},
      {"sampling.logit_bias[999]", [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[999] = 1; }},
      {"sampling.logit_bias[5]", [nan](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[5] = nan; }},
      {"stop_strings[0]", [](auto& r) { r.add_stop_strings(""); }},
      {"stop_strings[0]", [](auto& r) { r.add_stop_strings(std::string(257, 'x')); }},
      {"stop_strings",
       [](auto& r) {
         for (int i = 0; i < 17; ++i) r.add_stop_strings("x");
       }},
      {"stop_ids[0]", [](auto& r) { r.add_stop_ids(-3); }},
      {"stop_ids",
       [](auto& r) {
         for (int i = 0; i < 65; ++i) r.add_stop_ids(5);
       }},
      {"top_logprobs", [](auto& r) { r.set_top_logprobs(21); }},
      {"context_policy", [](auto& r) { r.set_context_policy(static_cast<pb::ContextPolicy>(9)); }},
  };
}

std::vector<BadRequest> BadRetrieval() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return {
      {"retrieval.k", [](auto& r) { r.mutable_retrieval()->set_k(0); }},
      {"retrieval.k", [](auto& r) { r.mutable_retrieval()->set_k(1'000'000'000); }},
      {"retrieval.effort", [](auto& r) { r.mutable_retrieval()->mutable_effort(); }},
      {"retrieval.effort.level", [nan](auto& r) { r.mutable_retrieval()->mutable_effort()->set_level(nan); }},
      {"retrieval.max_distance", [](auto& r) { r.mutable_retrieval()->set_max_distance(-1); }},
      {"retrieval.collection", [](auto& r) { r.mutable_retrieval()->set_collection(std::string(129, 'x')); }},
      {"retrieval.filter",
       [](auto& r) {
         auto* field = r.mutable_retrieval()->mutable_filter()->mutable_exists()->mutable_field();
         field->set_metadata_key(std::string(257 << 10, 'x'));
       }},
      {"retrieval.exclude_document_ids[0]", [](auto& r) { r.mutable_retrieval()->add_exclude_document_ids(""); }},
      {"retrieval.timeout", [](auto& r) { r.mutable_retrieval()->mutable_timeout()->set_seconds(61); }},
      {"retrieval.timeout", [](auto& r) { r.mutable_retrieval()->mutable_timeout()->set_seconds(-1); }},
      {"retrieval.gate", [nan](auto& r) { r.mutable_retrieval()->set_gate(nan); }},
      {"retrieval.gate", [](auto& r) { r.mutable_retrieval()->set_gate(-16.5F); }},
      {"retrieval.gate", [](auto& r) { r.mutable_retrieval()->set_gate(3e38F); }},
      {"retrieval.offset", [](auto& r) { r.mutable_retrieval()->set_offset(8); }},
      {"retrieval.on_failure",
       [](auto& r) { r.mutable_retrieval()->set_on_failure(static_cast<pb::FailurePolicy>(7)); }},
      {"retrieval.neighbours[0].chunk_number",
       [](auto& r) { r.mutable_retrieval()->add_neighbours()->set_chunk_number(99); }},
      {"retrieval.neighbours[0].neighbours[0].chunk",
       [](auto& r) { r.mutable_retrieval()->add_neighbours()->add_neighbours(); }},
      {"retrieval.neighbours[0].neighbours[0].continuation.token_ids[0]",
       [](auto& r) {
         auto* neighbour = r.mutable_retrieval()->add_neighbours()->add_neighbours();
         neighbour->mutable_chunk()->add_token_ids(5);
         neighbour->mutable_continuation()->add_token_ids(260);
       }},
      {"retrieval.neighbours",
       [](auto& r) {
         auto* neighbour = r.mutable_retrieval()->add_neighbours()->add_neighbours();
         neighbour->mutable_chunk()->set_text(std::string(17 << 20, 'x'));
       }},
      {"retrieval.neighbours[1].chunk_number",
       [](auto& r) { r.mutable_retrieval()->add_neighbours(), r.mutable_retrieval()->add_neighbours(); }},
  };
}

std::vector<BadRequest> BadMetadata() {
  return {
      {"retrieval.neighbours[0].neighbours[0].metadata[\"a\"].values",
       [](auto& r) {
         for (int i = 0; i < 257; ++i) (*Given(r).mutable_metadata())["a"].add_values()->set_int_value(i);
       }},
      {"retrieval.neighbours[0].neighbours[0].metadata[\"a\"].values",
       [](auto& r) { (*Given(r).mutable_metadata())["a"].add_values(); }},
      {"retrieval.neighbours[0].neighbours[0].metadata[\"a\"].values",
       [](auto& r) { (*Given(r).mutable_metadata())["a"]; }},
      {"retrieval.neighbours[0].neighbours[0].metadata",
       [](auto& r) { (*Given(r).mutable_metadata())[std::string(129, 'x')].add_values()->set_int_value(1); }},
      {"retrieval.neighbours[0].neighbours[0].metadata",
       [](auto& r) {
         for (int i = 0; i < 65; ++i) (*Given(r).mutable_metadata())[std::to_string(i)].add_values()->set_int_value(1);
       }},
      {"retrieval.neighbours[0].neighbours[0].metadata",
       [](auto& r) {
         for (int i = 0; i < 17; ++i)
           (*Given(r).mutable_metadata())["a"].add_values()->set_string_value(std::string(4096, 'x'));
       }},
  };
}

TEST_F(GeneratorFieldsTest, EveryFieldIsCheckedAndNamed) {
  Serve();
  std::vector<BadRequest> bad = BadPromptsAndSampling();
  std::ranges::copy(BadRetrieval(), std::back_inserter(bad));
  std::ranges::copy(BadMetadata(), std::back_inserter(bad));
  for (const BadRequest& one : bad) {
    auto request = Request("fine", 2);
    one.spoil(request);
    const absl::Status status = Generate(request).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << one.field << ": " << status;
    EXPECT_EQ(FieldOf(status), std::optional(one.field)) << status;
  }
  EXPECT_TRUE(Generate(Request("still fine", 2)).status.ok());
}

TEST_F(GeneratorFieldsTest, AServerMayAllowFewerNeighbours) {
  Serve(retriever_.address(), {}, std::chrono::milliseconds(3000), {.neighbours_max = 1});
  auto request = Request("bridge", 2);
  EXPECT_EQ(Generate(request).retrievals.at(0).neighbours().neighbours_size(), 1);  // not as trained
  request.mutable_retrieval()->set_k(2);
  const absl::Status asked = Generate(request).status;
  EXPECT_EQ(FieldOf(asked), std::optional<std::string>("retrieval.k")) << asked;
  request.mutable_retrieval()->set_k(1);
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  for (int i = 0; i < 2; ++i) given->add_neighbours()->mutable_chunk()->set_text("given");
  const absl::Status too_many = Generate(request).status;
  EXPECT_EQ(FieldOf(too_many), std::optional<std::string>("retrieval.neighbours[0].neighbours")) << too_many;
}

TEST_F(GeneratorFieldsTest, OnRequestTheContextSlides) {
  Serve();
  auto request = Request(std::string(150, 'x'), 40);  // the context has 128 tokens
  EXPECT_EQ(ReasonOf(Generate(request).status), Reason::kContextTooLong);
  request.set_context_policy(pb::CONTEXT_POLICY_SLIDE);
  const Stream run = Generate(request);
  ASSERT_TRUE(run.status.ok()) << run.status;
  ASSERT_EQ(run.tokens.size(), 40U);
  EXPECT_EQ(run.tokens.back().position(), 189U);
  ASSERT_EQ(run.retrievals.size(), 23U);  // 6 | 18 times 8 of the prompt, 4 of what was generated
  EXPECT_EQ(run.retrievals.back().neighbours().chunk_number(), 22U);
  request.set_max_tokens(16 * 128 - 149);
  const absl::Status endless = Generate(request).status;
  EXPECT_EQ(ReasonOf(endless), Reason::kContextTooLong);
  EXPECT_THAT(std::string(endless.message()), HasSubstr("2048"));
}

TEST_F(GeneratorFieldsTest, ALongItemOfAScoreIsToldWhatToShorten) {
  Serve();
  pb::ScoreRequest request;
  pb::ScoreItem* item = request.add_items();
  item->set_context_text(std::string(100, 'x'));
  item->set_continuation_text(std::string(29, 'x'));
  grpc::ClientContext context;
  pb::ScoreResponse response;
  const absl::Status status = FromGrpcStatus(stub_->Score(&context, request, &response));
  EXPECT_EQ(ReasonOf(status), Reason::kContextTooLong);
  EXPECT_EQ(FieldOf(status), std::optional<std::string>("items[0]"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("max_tokens")));  // which Score has none of
}

TEST_F(GeneratorFieldsTest, ALongPromptsErrorNamesTheLimit) {
  Serve();
  const absl::Status status = Generate(Request(std::string(126, 'x'), 3)).status;
  EXPECT_EQ(ReasonOf(status), Reason::kContextTooLong);
  EXPECT_THAT(std::string(status.message()), HasSubstr("128"));
}

}  // namespace
}  // namespace retro
