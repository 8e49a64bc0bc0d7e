// The generator over gRPC, with a tiny model and a fake retriever.
#include "generator_service/serve/generator_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <thread>

#include "common/base/error.h"
#include "common/rpc/status.h"
#include "generator_service/engine/text_assembler.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "retro/generator/v1/generator.grpc.pb.h"
#include "tests/fake_retriever.h"
#include "tests/tiny_model.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;
using std::chrono::milliseconds;
using testing::HasSubstr;

// A finished (or failed) stream.
struct Stream {
  std::vector<pb::TokenEvent> tokens;
  std::vector<pb::RetrievalEvent> retrievals;
  pb::FinishEvent finish;
  absl::Status status;

  std::vector<TokenId> Ids() const {
    std::vector<TokenId> ids;
    for (const auto& token : tokens) ids.push_back(token.id());
    return ids;
  }
  std::string Text() const {
    std::string text;
    for (const auto& token : tokens) text += token.text();
    return text + finish.text();
  }
};

class GeneratorServiceTest : public testing::Test {
 protected:
  GeneratorServiceTest() : retriever_(std::string(32, 'b')) {}

  void Serve(const std::string& retriever, SchedulerLimits limits = {}, milliseconds drain_max = milliseconds(3000)) {
    ServedModel model;
    model.model = MakeTinyModel();
    model.info.config = model.model->config();
    model.info.revision = std::string(64, 'a');
    model.tokenizer = std::make_shared<ByteTokenizer>();
    model.name = "tiny";
    GeneratorOptions options;
    options.retriever = retriever;
    options.limits = limits;
    options.server.drain_max = drain_max;
    options.probe_ms = milliseconds(100);
    auto generator = Generator::Start(options, std::move(model), metrics_);
    ASSERT_TRUE(generator.ok()) << generator.status();
    generator_ = *std::move(generator);
    channel_ =
        grpc::CreateChannel("127.0.0.1:" + std::to_string(generator_->port()), grpc::InsecureChannelCredentials());
    stub_ = pb::GeneratorService::NewStub(channel_);
  }
  void Serve() { Serve(retriever_.address()); }

  static pb::GenerateRequest Request(const std::string& prompt, uint32_t max_tokens) {
    pb::GenerateRequest request;
    request.set_text(prompt);
    request.set_max_tokens(max_tokens);
    request.mutable_sampling()->set_temperature(0.8F);
    request.mutable_sampling()->set_seed(11);
    (*request.mutable_sampling()->mutable_logit_bias())[3] = -100;  // no end of text
    request.mutable_retrieval()->mutable_timeout()->set_seconds(30);
    return request;
  }

  Stream Generate(const pb::GenerateRequest& request, grpc::ClientContext* given = nullptr) {
    grpc::ClientContext own;
    auto reader = stub_->Generate(given != nullptr ? given : &own, request);
    Stream run;
    pb::GenerateResponse event;
    while (reader->Read(&event)) {
      if (event.has_token()) run.tokens.push_back(event.token());
      if (event.has_retrieval()) run.retrievals.push_back(event.retrieval());
      if (event.has_finish()) run.finish = event.finish();
    }
    run.status = FromGrpcStatus(reader->Finish());
    return run;
  }

  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& name) {
    const auto stub = grpc::health::v1::Health::NewStub(channel_);
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(stub->Check(&context, request, &response).ok());
    return response.status();
  }

  FakeRetriever retriever_;
  Metrics metrics_;
  std::unique_ptr<Generator> generator_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pb::GeneratorService::Stub> stub_;
};

TEST_F(GeneratorServiceTest, StreamsTokensRetrievalsAndAFinish) {
  Serve();
  const Stream run = Generate(Request("a prompt of ten words", 20));  // 5 | 8 | 8 | 8 generated | 8 generated
  ASSERT_TRUE(run.status.ok()) << run.status;
  ASSERT_EQ(run.tokens.size(), 20U);
  ASSERT_EQ(run.retrievals.size(), 5U);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(run.tokens[i].position(), 21 + i);
  EXPECT_EQ(run.retrievals[0].token_begin(), 0U);
  EXPECT_EQ(run.retrievals[0].token_end(), 5U);
  EXPECT_EQ(run.retrievals[4].neighbours().chunk_number(), 4U);
  EXPECT_EQ(run.retrievals[0].neighbours().neighbours_size(), 2);  // k as trained
  EXPECT_EQ(run.retrievals[0].degradation(), pb::DEGRADATION_NONE);
  EXPECT_TRUE(run.retrievals[0].has_search_times());
  EXPECT_EQ(run.finish.reason(), pb::FINISH_REASON_LENGTH);
  EXPECT_EQ(run.finish.prompt_tokens(), 21U);
  EXPECT_EQ(run.finish.generated_tokens(), 20U);
  EXPECT_EQ(run.finish.lookups(), 3U);
  EXPECT_EQ(run.finish.seed(), 11U);
  EXPECT_TRUE(run.finish.has_time_to_first_token());
}

TEST_F(GeneratorServiceTest, OneSearchForThePromptAndOneAChunkWithTheChunksText) {
  Serve();
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "trace-me");
  auto request = Request("a prompt of ten words", 20);
  request.mutable_retrieval()->set_k(3);
  request.mutable_retrieval()->add_exclude_document_ids("own");
  request.mutable_retrieval()->mutable_effort()->set_exact(true);
  request.mutable_retrieval()->set_consistency_token("token");
  const Stream run = Generate(request, &context);
  const auto requests = retriever_.requests();
  ASSERT_GE(requests.size(), 1U);
  ASSERT_EQ(requests[0].queries_size(), 3);
  EXPECT_EQ(requests[0].queries(0).text(), "a pro");
  EXPECT_EQ(requests[0].queries(1).text(), "mpt of t");
  EXPECT_EQ(requests[0].k(), 3U);
  EXPECT_EQ(requests[0].exclude_document_ids(0), "own");
  EXPECT_TRUE(requests[0].effort().exact());
  EXPECT_EQ(requests[0].consistency_token(), "token");
  EXPECT_THAT(retriever_.request_ids(), testing::Each("trace-me"));
  std::string raw;
  for (size_t i = 0; i < 8; ++i) raw += run.tokens[i].raw();
  if (!LongestValidUtf8(raw).empty()) {
    ASSERT_GE(requests.size(), 2U);
    ASSERT_EQ(requests[1].queries_size(), 1);
    EXPECT_EQ(requests[1].queries(0).text(), LongestValidUtf8(raw));
  }
}

TEST_F(GeneratorServiceTest, AlignmentDecidesWhereThePromptsChunksEnd) {
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

TEST_F(GeneratorServiceTest, ARunCanBeReplayedFromItsEventsWithoutARetriever) {
  Serve();
  auto request = Request("to be played again", 30);
  const Stream first = Generate(request);
  ASSERT_TRUE(first.status.ok()) << first.status;
  retriever_.Stop();
  for (const auto& retrieval : first.retrievals)
    *request.mutable_retrieval()->add_neighbours() = retrieval.neighbours();
  const Stream again = Generate(request);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.Ids(), first.Ids());
  EXPECT_EQ(again.finish.lookups(), 0U);
  ASSERT_EQ(again.retrievals.size(), first.retrievals.size());
  for (size_t i = 0; i < first.retrievals.size(); ++i) {
    EXPECT_EQ(again.retrievals[i].neighbours().SerializeAsString(),
              first.retrievals[i].neighbours().SerializeAsString());
  }
}

TEST_F(GeneratorServiceTest, NeighboursMatterAndGivenOnesAreAppendedTo) {
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

TEST_F(GeneratorServiceTest, AnotherTokenizersNeighboursAreTokenisedAgain) {
  retriever_.SetTokenizer(std::string(32, 'x'));
  Serve();
  const Stream run = Generate(Request("bridge", 2));
  ASSERT_EQ(run.retrievals.size(), 1U);
  EXPECT_EQ(run.retrievals[0].retokenised(), 2U);
  const auto& chunk = run.retrievals[0].neighbours().neighbours(0).chunk();
  EXPECT_EQ(std::vector<TokenId>(chunk.token_ids().begin(), chunk.token_ids().end()), Ids("n0:bridg"));
  grpc::ClientContext context;
  pb::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_THAT(model.warnings(), testing::Contains(HasSubstr("another tokenizer")));
}

TEST_F(GeneratorServiceTest, TextsTogetherAreTheDecodedIds) {
  Serve();
  auto request = Request("all bytes", 90);
  request.mutable_sampling()->set_temperature(4);
  request.mutable_sampling()->set_top_p(1);
  for (uint64_t seed = 0; seed < 3; ++seed) {
    request.mutable_sampling()->set_seed(seed);
    const Stream run = Generate(request);
    Utf8Mender mender;
    std::string expected = mender.Append(ByteTokenizer().Decode(run.Ids()));
    expected += mender.Finish();
    EXPECT_EQ(run.Text(), expected);
  }
}

TEST_F(GeneratorServiceTest, ADownRetrieverFailsTheCallOrIsSaid) {
  Serve("127.0.0.1:1");
  auto request = Request("nobody there", 4);
  const Stream failed = Generate(request);
  EXPECT_EQ(failed.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(failed.status), Reason::kRetrievalFailed);
  EXPECT_THAT(std::string(failed.status.message()), HasSubstr("127.0.0.1:1"));
  request.mutable_retrieval()->set_on_failure(pb::FAILURE_POLICY_GO_ON_WITHOUT);
  const Stream degraded = Generate(request);
  ASSERT_TRUE(degraded.status.ok()) << degraded.status;
  EXPECT_EQ(degraded.tokens.size(), 4U);
  ASSERT_EQ(degraded.retrievals.size(), 2U);
  EXPECT_EQ(degraded.retrievals[0].degradation(), pb::DEGRADATION_UNAVAILABLE);
  EXPECT_EQ(Health(""), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health(kGeneratorHealth), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health(kRetrievalHealth), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
}

TEST_F(GeneratorServiceTest, GivenNeighboursStayWhenALookupFails) {
  Serve("127.0.0.1:1");
  auto request = Request("0123456789", 2);  // 2 | 8
  request.mutable_retrieval()->set_on_failure(pb::FAILURE_POLICY_GO_ON_WITHOUT);
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  given->set_chunk_number(0);
  given->add_neighbours()->mutable_chunk()->set_text("mine");
  for (const auto mode : {pb::NEIGHBOUR_MODE_REPLACE, pb::NEIGHBOUR_MODE_APPEND}) {
    request.mutable_retrieval()->set_neighbour_mode(mode);
    const Stream run = Generate(request);
    ASSERT_TRUE(run.status.ok()) << run.status;
    ASSERT_EQ(run.retrievals.size(), 2U);
    EXPECT_EQ(run.retrievals[0].neighbours().neighbours_size(), 1);
    EXPECT_EQ(run.retrievals[0].degradation(),
              mode == pb::NEIGHBOUR_MODE_REPLACE ? pb::DEGRADATION_NONE : pb::DEGRADATION_UNAVAILABLE);
    EXPECT_EQ(run.retrievals[1].neighbours().neighbours_size(), 0);
    EXPECT_EQ(run.retrievals[1].degradation(), pb::DEGRADATION_UNAVAILABLE);
    EXPECT_THAT(run.retrievals[1].degradation_message(), HasSubstr("127.0.0.1:1"));
  }
}

TEST_F(GeneratorServiceTest, SlowAndPartialAnswersAreClassified) {
  Serve();
  auto request = Request("slow and partial", 2);
  request.mutable_retrieval()->set_on_failure(pb::FAILURE_POLICY_GO_ON_WITHOUT);
  request.mutable_retrieval()->set_allow_partial(true);
  retriever_.SetCoverage(1, 2);
  EXPECT_EQ(Generate(request).retrievals[0].degradation(), pb::DEGRADATION_PARTIAL_COVERAGE);
  retriever_.SetDelay(milliseconds(20'000));
  request.mutable_retrieval()->mutable_timeout()->set_seconds(0);
  request.mutable_retrieval()->mutable_timeout()->set_nanos(50'000'000);
  EXPECT_EQ(Generate(request).retrievals[0].degradation(), pb::DEGRADATION_TIMED_OUT);
  request.mutable_retrieval()->set_on_failure(pb::FAILURE_POLICY_FAIL);
  const absl::Status status = Generate(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("50 ms"));
}

TEST_F(GeneratorServiceTest, TheRetrieversRefusalReachesTheCaller) {
  Serve();
  retriever_.SetStatus(
      ToGrpcStatus(Error(absl::StatusCode::kNotFound, Reason::kCollectionNotFound, "no such collection")));
  const absl::Status status = Generate(Request("refused", 2)).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(status), Reason::kCollectionNotFound);

  retriever_.SetStatus(ToGrpcStatus(QueueFullError("the queue", milliseconds(40'000))));
  const absl::Status full = Generate(Request("refused", 2)).status;
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), Reason::kQueueFull);
  EXPECT_EQ(RetryAfterOf(full), std::optional(milliseconds(40'000)));
  EXPECT_THAT(std::string(full.message()), HasSubstr("refused: the queue is full"));
}

TEST_F(GeneratorServiceTest, ACancelFreesThePlaceAndCancelsTheLookup) {
  Serve(retriever_.address(), {.sessions_max = 1, .waiting_max = 0});
  retriever_.SetDelay(milliseconds(60'000));
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request("holds the only place", 10));
  while (retriever_.requests().empty()) std::this_thread::yield();
  auto plain = Request("refused meanwhile", 3);
  plain.mutable_retrieval()->set_enabled(false);
  const absl::Status refused = Generate(plain).status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RetryAfterOf(refused).has_value());
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  Stream served = Generate(plain);
  while (served.status.code() == absl::StatusCode::kResourceExhausted) served = Generate(plain);
  EXPECT_EQ(served.tokens.size(), 3U);
  while (retriever_.cancelled() == 0) std::this_thread::yield();
}

TEST_F(GeneratorServiceTest, ADrainCutsAStreamAndSaysHowToGoOn) {
  Serve(retriever_.address(), {}, milliseconds(1000));
  retriever_.SetDelay(milliseconds(60'000));
  Stream cut;
  std::thread caller([&] { cut = Generate(Request("cut short", 10)); });
  while (retriever_.requests().empty()) std::this_thread::yield();
  generator_->Stop();
  caller.join();
  EXPECT_TRUE(cut.status.ok()) << cut.status;
  EXPECT_EQ(cut.finish.reason(), pb::FINISH_REASON_DRAINED);
  EXPECT_EQ(cut.finish.resume().tokens().ids_size(), 9);
  EXPECT_EQ(cut.finish.resume().offset(), 1U);
  EXPECT_EQ(cut.finish.resume().seed(), 11U);
}

TEST_F(GeneratorServiceTest, ScoreGivesTheLogprobsThatGenerateGave) {
  Serve();
  auto request = Request("score what was", 12);
  const Stream run = Generate(request);
  pb::ScoreRequest score;
  *score.mutable_retrieval() = request.retrieval();
  pb::ScoreItem* item = score.add_items();
  item->set_context_text("score what was");
  for (const auto& token : run.tokens) item->mutable_continuation_tokens()->add_ids(token.id());
  pb::ScoreItem* empty_context = score.add_items();
  empty_context->set_context_text("");
  empty_context->set_continuation_text("abc");
  grpc::ClientContext context;
  pb::ScoreResponse response;
  const grpc::Status status = stub_->Score(&context, score, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 2);
  ASSERT_EQ(response.results(0).logprobs_size(), 12);
  double total = 0;
  for (int i = 0; i < 12; ++i) {
    EXPECT_NEAR(response.results(0).logprobs(i), run.tokens[static_cast<size_t>(i)].logprob(), 1e-3);
    total += response.results(0).logprobs(i);
  }
  EXPECT_NEAR(response.results(0).total_logprob(), total, 1e-4);
  EXPECT_EQ(response.results(0).greedy_size(), 12);
  EXPECT_EQ(response.results(0).retrievals_size(), 3);  // 6 | 8 | 8 scored
  EXPECT_EQ(response.results(1).tokens_size(), 3);
}

TEST_F(GeneratorServiceTest, AScoreOfSeveralItemsNeedsOnePlace) {
  Serve(retriever_.address(), {.sessions_max = 1, .waiting_max = 0});
  pb::ScoreRequest score;
  for (int i = 0; i < 5; ++i) {
    pb::ScoreItem* item = score.add_items();
    item->set_context_text("item " + std::to_string(i));
    item->set_continuation_text(" of five");
  }
  for (int i = 0; i < 3; ++i) {  // nor does one leave a place taken
    grpc::ClientContext context;
    pb::ScoreResponse response;
    grpc::Status status = stub_->Score(&context, score, &response);
    while (i > 0 && status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {  // the last one is just leaving
      grpc::ClientContext again;
      status = stub_->Score(&again, score, &response);
    }
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.results_size(), 5);
  }
}

TEST_F(GeneratorServiceTest, AScoresRetrievalEventsAreBounded) {
  Serve();
  pb::ScoreRequest score;
  pb::ChunkNeighbours* given = score.mutable_retrieval()->add_neighbours();
  given->set_chunk_number(0);
  given->add_neighbours()->mutable_chunk()->set_text(std::string(9 << 20, 'x'));
  const auto ask = [&] {
    pb::ScoreItem* item = score.add_items();
    item->set_context_text("item");
    item->set_continuation_text(" of two");
    grpc::ClientContext context;
    pb::ScoreResponse response;
    return FromGrpcStatus(stub_->Score(&context, score, &response));
  };
  const absl::Status one = ask();  // more than a client takes by default, but the server gave it
  EXPECT_THAT(std::string(one.message()), HasSubstr("larger than max"));
  const absl::Status two = ask();
  EXPECT_EQ(two.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(two), std::optional<std::string>("items"));
}

TEST_F(GeneratorServiceTest, ACallThatNobodyReadsEnds) {
  Serve(retriever_.address(), {.stall_ms_max = milliseconds(50)});
  auto request = Request("unread", 100);
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  given->set_chunk_number(0);
  // More than a connection takes ahead of its reader.
  given->add_neighbours()->mutable_chunk()->set_text(std::string(12 << 20, 'x'));
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  const auto& cancelled = metrics_.Counter("retro_requests_total", "Requests answered, by method and code.",
                                           {{"method", "Generate"}, {"code", "CANCELLED"}});
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (cancelled.Value() == 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(cancelled.Value(), 1);
  context.TryCancel();
  reader->Finish();
}

TEST_F(GeneratorServiceTest, GetModelDescribesTheModel) {
  Serve();
  while (Health(kRetrievalHealth) != grpc::health::v1::HealthCheckResponse::SERVING) std::this_thread::yield();
  grpc::ClientContext context;
  pb::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.name(), "tiny");
  EXPECT_EQ(model.context_length(), 128U);
  EXPECT_EQ(model.chunk_size(), 8U);
  EXPECT_THAT(model.cca_layers(), testing::ElementsAre(2U, 3U));
  EXPECT_EQ(model.revision().size(), 32U);
  EXPECT_EQ(model.tokenizer_fingerprint(), std::string(32, 'b'));
  EXPECT_GT(model.parameters_total(), model.parameters());
}

struct BadRequest {
  std::string field;
  std::function<void(pb::GenerateRequest&)> spoil;
};

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
      {"retrieval.exclude_document_ids[0]", [](auto& r) { r.mutable_retrieval()->add_exclude_document_ids(""); }},
      {"retrieval.timeout", [](auto& r) { r.mutable_retrieval()->mutable_timeout()->set_seconds(61); }},
      {"retrieval.timeout", [](auto& r) { r.mutable_retrieval()->mutable_timeout()->set_seconds(-1); }},
      {"retrieval.gate", [nan](auto& r) { r.mutable_retrieval()->set_gate(nan); }},
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

TEST_F(GeneratorServiceTest, EveryFieldIsCheckedAndNamed) {
  Serve();
  std::vector<BadRequest> bad = BadPromptsAndSampling();
  std::ranges::copy(BadRetrieval(), std::back_inserter(bad));
  for (const BadRequest& one : bad) {
    auto request = Request("fine", 2);
    one.spoil(request);
    const absl::Status status = Generate(request).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << one.field << ": " << status;
    EXPECT_EQ(FieldOf(status), std::optional(one.field)) << status;
  }
  EXPECT_TRUE(Generate(Request("still fine", 2)).status.ok());
}

TEST_F(GeneratorServiceTest, OnRequestTheContextSlides) {
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

TEST_F(GeneratorServiceTest, ALongPromptsErrorNamesTheLimit) {
  Serve();
  const absl::Status status = Generate(Request(std::string(126, 'x'), 3)).status;
  EXPECT_EQ(ReasonOf(status), Reason::kContextTooLong);
  EXPECT_THAT(std::string(status.message()), HasSubstr("128"));
}

TEST_F(GeneratorServiceTest, ManyStreamsAtOnceSomeCancelled) {
  Serve(retriever_.address(), {.sessions_max = 8, .waiting_max = 100});
  const Stream alone = Generate(Request("the same for all", 24));
  constexpr int kCallers = 24;
  std::vector<std::thread> callers;
  callers.reserve(kCallers);
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([this, i, &alone] {
      grpc::ClientContext context;
      if (i % 3 == 0) {
        auto reader = stub_->Generate(&context, Request("the same for all", 24));
        pb::GenerateResponse event;
        for (int n = 0; n < i && reader->Read(&event); ++n) {
        }
        context.TryCancel();
        reader->Finish();
        return;
      }
      const Stream run = Generate(Request("the same for all", 24), &context);
      EXPECT_TRUE(run.status.ok()) << run.status;
      EXPECT_EQ(run.Ids(), alone.Ids());
    });
  }
  for (std::thread& caller : callers) caller.join();
}

}  // namespace
}  // namespace retro
