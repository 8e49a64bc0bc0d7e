// The generator over gRPC, with a tiny model and a fake retriever: the life of its calls.
#include "generator_service/serve/generator_service.h"

#include <gmock/gmock.h>

#include <functional>
#include <thread>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "generator_service/engine/text_assembler.h"
#include "tests/generator_fixture.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;
using std::chrono::milliseconds;
using testing::HasSubstr;

// A call's memory is given back a moment after its caller has the answer.
bool EventuallyOk(const std::function<absl::Status()>& call) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!call().ok()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

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
  context.AddMetadata("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
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
  EXPECT_THAT(retriever_.traceparents(),
              testing::Each(testing::AllOf(testing::StartsWith("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
                                           testing::EndsWith("-01"), testing::Not(testing::HasSubstr("00f067aa")))));
  std::string raw;
  for (size_t i = 0; i < 8; ++i) raw += run.tokens[i].raw();
  ASSERT_NE(LongestValidUtf8(raw), "") << "what this tiny model writes can be looked up";
  ASSERT_GE(requests.size(), 2U);
  ASSERT_EQ(requests[1].queries_size(), 1);
  EXPECT_EQ(requests[1].queries(0).text(), LongestValidUtf8(raw));
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

TEST_F(GeneratorServiceTest, TheEndWaitsForNoLookAtTheRetriever) {
  retriever_.SetInfoDelay(milliseconds(60'000));
  GeneratorOptions options;
  options.retriever = retriever_.address();
  options.probe_ms = milliseconds(60'000);
  auto generator = Generator::Start(options, TinyServedModel(), metrics_);
  ASSERT_TRUE(generator.ok()) << generator.status();
  while (retriever_.info_calls() == 0) std::this_thread::yield();
  const auto begin = std::chrono::steady_clock::now();
  (*generator)->Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(GeneratorServiceTest, ACutRunIsResumedElsewhereAsIfNothingHadHappened) {
  Serve();
  auto request = Request("resumed elsewhere", 30);
  const Stream whole = Generate(request);
  Serve(retriever_.address(), {}, milliseconds(1000));
  const size_t before = retriever_.requests().size();
  retriever_.SetDelay(milliseconds(1000));  // so that the end comes in between
  Stream cut;
  std::thread caller([&] { cut = Generate(request); });
  while (retriever_.requests().size() < before + 2) std::this_thread::yield();
  generator_->Stop();
  caller.join();
  ASSERT_EQ(cut.finish.reason(), pb::FINISH_REASON_DRAINED);
  retriever_.SetDelay(milliseconds(0));
  Serve();
  auto rest = request;
  *rest.mutable_tokens() = cut.finish.resume().tokens();
  rest.mutable_retrieval()->set_offset(cut.finish.resume().offset());
  rest.mutable_sampling()->set_seed(cut.finish.resume().seed());
  rest.set_max_tokens(30 - cut.finish.generated_tokens());
  const Stream resumed = Generate(rest);
  std::vector<TokenId> ids = cut.Ids();
  for (const TokenId id : resumed.Ids()) ids.push_back(id);
  EXPECT_EQ(ids, whole.Ids());
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

class UnreadCallTest : public GeneratorServiceTest, public testing::WithParamInterface<uint32_t> {};

// Whether its generation still runs or, with one token, has ended long ago.
TEST_P(UnreadCallTest, Ends) {
  Serve(retriever_.address(), {.stall_ms_max = milliseconds(50)});
  auto request = Request("unread", GetParam());
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

INSTANTIATE_TEST_SUITE_P(MaxTokens, UnreadCallTest, testing::Values(1, 100));

TEST_F(GeneratorServiceTest, BytesOfRequestsAreBoundedWhileTheirGenerationsLast) {
  Serve(retriever_.address(), {}, milliseconds(3000), {.request_bytes_max = 100'000});
  auto request = Request("counted", 20);
  request.mutable_retrieval()->add_neighbours()->add_neighbours()->mutable_chunk()->set_text(std::string(30'000, 'x'));
  // Each gives its room back.
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(EventuallyOk([&] { return Generate(request).status; }));
  auto larger = request;
  larger.mutable_retrieval()->mutable_neighbours(0)->mutable_neighbours(0)->mutable_chunk()->set_text(
      std::string(60'000, 'x'));
  const absl::Status refused = Generate(larger).status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), Reason::kQueueFull);

  pb::ScoreRequest score;
  *score.mutable_retrieval() = request.retrieval();
  score.add_items()->set_context_text("item");
  score.mutable_items(0)->set_continuation_text(" of one");
  // Its reply names the neighbours again, and finds no room beside the request and what is kept of it.
  grpc::ClientContext context;
  pb::ScoreResponse response;
  EXPECT_EQ(ReasonOf(FromGrpcStatus(stub_->Score(&context, score, &response))), Reason::kQueueFull);
  EXPECT_TRUE(EventuallyOk([&] { return Generate(request).status; }));
}

// Whether so many bytes of requests and replies are in memory, before long.
bool EventuallyHolds(Metrics& metrics, const std::function<bool(double bytes)>& is_right) {
  const auto& held =
      metrics.Gauge("retro_request_bytes", "Bytes of requests and replies in memory, of --request-bytes-max.");
  return EventuallyOk([&] {
    metrics.Collect();
    return is_right(held.Value()) ? absl::OkStatus() : absl::UnavailableError("not yet");
  });
}

// The message is gone once it has been read, but not what its generation has of it.
TEST_F(GeneratorServiceTest, GivenNeighboursCountAsObjectsWhileTheirGenerationLasts) {
  Serve();
  auto request = Request("0123456789abcdef", 2);  // 8 | 8, of which the second is looked up
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  given->add_neighbours()->mutable_chunk()->set_text("given");
  FillMetadata(*given->mutable_neighbours(0));
  ASSERT_LT(request.ByteSizeLong(), 70'000U);
  retriever_.SetDelay(milliseconds(60'000));
  grpc::ClientContext context;
  const auto stalled = stub_->Generate(&context, request);
  while (retriever_.requests().empty()) std::this_thread::yield();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_TRUE(EventuallyHolds(metrics_, [](double bytes) { return bytes > 500'000; }));
  context.TryCancel();
  stalled->Finish();
  EXPECT_TRUE(EventuallyHolds(metrics_, [](double bytes) { return bytes == 0; }));
}

// What was found for a stream counts until its reader has it.
TEST_F(GeneratorServiceTest, BytesOfWhatIsFoundAreBoundedWhileNobodyReadsThem) {
  Serve(retriever_.address(), {}, milliseconds(3000), {.request_bytes_max = 1'000'000});
  retriever_.SetTitle(std::string(100'000, 't'));
  const auto request = Request("0123456789abcdefg", 2);  // 1 | 8 | 8: three times two neighbours
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(EventuallyOk([&] { return Generate(request).status; }));
  ASSERT_TRUE(EventuallyHolds(metrics_, [](double bytes) { return bytes == 0; }));

  // A connection that was fast would take more than the first 64 KiB that nobody reads.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  const auto stub = pb::GeneratorService::NewStub(grpc::CreateCustomChannel(
      StrCat("127.0.0.1:", generator_->port()), grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  const auto unread = stub->Generate(&context, request);
  ASSERT_TRUE(EventuallyHolds(metrics_, [](double bytes) { return bytes > 500'000; }));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ReasonOf(Generate(request).status), Reason::kQueueFull);
  context.TryCancel();
  unread->Finish();
  EXPECT_TRUE(EventuallyOk([&] { return Generate(request).status; }));
}

TEST_F(GeneratorServiceTest, ARequestThatDoesNotParseIsToldSo) {
  Serve();
  auto request = Request("fine", 2);
  request.set_text("not UTF-8: \xff");
  const absl::Status status = Generate(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not parse"));
}

TEST_F(GeneratorServiceTest, NeighboursAreAsManyAsTheModelWasTrainedWith) {
  ServedModel model = TinyServedModel();
  model.info.trained_neighbours = 3;
  Serve(std::move(model));
  const Stream run = Generate(Request("bridge", 2));
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(retriever_.requests().at(0).k(), 3U);
  EXPECT_EQ(run.retrievals.at(0).neighbours().neighbours_size(), 3);
  grpc::ClientContext context;
  pb::GetModelResponse described;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &described).ok());
  EXPECT_EQ(described.neighbours(), 3U);
}

TEST_F(GeneratorServiceTest, MoreNeighboursThanARequestMayHaveAreNoDefault) {
  ServedModel model = TinyServedModel();
  model.info.trained_neighbours = 100;
  Serve(std::move(model));
  ASSERT_TRUE(Generate(Request("bridge", 2)).status.ok());
  EXPECT_EQ(retriever_.requests().at(0).k(), 64U);
}

TEST_F(GeneratorServiceTest, GetModelDescribesTheModel) {
  Serve();
  while (Health(kRetrievalHealth) != grpc::health::v1::HealthCheckResponse::SERVING) std::this_thread::yield();
  grpc::ClientContext context;
  pb::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.name(), "tiny");
  EXPECT_FALSE(model.version().empty());
  EXPECT_EQ(model.context_length(), 128U);
  EXPECT_EQ(model.chunk_size(), 8U);
  EXPECT_THAT(model.cca_layers(), testing::ElementsAre(2U, 3U));
  EXPECT_EQ(model.revision().size(), 32U);
  EXPECT_EQ(model.tokenizer_fingerprint(), std::string(32, 'b'));
  EXPECT_GT(model.parameters_total(), model.parameters());
}

}  // namespace
}  // namespace retro
