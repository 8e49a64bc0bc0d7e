// A hundred streams at once over gRPC, a third of them cancelled at a random moment, beside a retriever that takes its
// time and is full now and then: whoever stays gets the tokens that it gets alone, and nothing is left behind. Meant
// for the thread and address sanitizers as much as for itself.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "common/base/error.h"
#include "common/rpc/status.h"
#include "generator_service/serve/generator_service.h"
#include "retro/generator/v1/generator.grpc.pb.h"
#include "tests/fake_retriever.h"
#include "tests/tiny_served_model.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;
using std::chrono::milliseconds;

constexpr int kStreams = 100;
constexpr uint32_t kTokens = 24;
constexpr int kPrompts = 4;

class ConcurrentStreamsTest : public testing::Test {
 protected:
  ConcurrentStreamsTest() : retriever_(std::string(32, 'b')) {
    GeneratorOptions options;
    options.retriever = retriever_.address();
    options.limits = {.sessions_max = 8, .waiting_max = kStreams, .encoder_rows_max = 6};
    options.probe_ms = milliseconds(20);
    generator_ = *Generator::Start(options, TinyServedModel(), metrics_);
    const std::string address = "127.0.0.1:" + std::to_string(generator_->port());
    stub_ = pb::GeneratorService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  }

  static pb::GenerateRequest Request(int prompt) {
    pb::GenerateRequest request;
    request.set_text("prompt " + std::string(static_cast<size_t>(5 * prompt), 'x') + " number " +
                     std::to_string(prompt));
    request.set_max_tokens(kTokens);
    request.set_attribution(prompt == 1);
    request.set_echo(prompt == 2);
    request.mutable_sampling()->set_seed(11);
    (*request.mutable_sampling()->mutable_logit_bias())[3] = -100;  // no end of text
    request.mutable_retrieval()->mutable_timeout()->set_seconds(60);
    return request;
  }

  // The new tokens; stops reading and cancels after `events` of them, if that is not negative.
  std::vector<TokenId> Generate(int prompt, int events, absl::Status* status) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, Request(prompt));
    std::vector<TokenId> ids;
    pb::GenerateResponse event;
    for (int n = 0; n != events && reader->Read(&event); ++n) {
      if (event.has_token() && !event.token().prompt()) ids.push_back(event.token().id());
    }
    if (events >= 0) context.TryCancel();
    *status = FromGrpcStatus(reader->Finish());
    return ids;
  }

  void AwaitNoSessions() {
    const auto& running = metrics_.Gauge("retro_sessions_running", "Generations that have a place.");
    const auto& waiting = metrics_.Gauge("retro_sessions_waiting", "Generations that wait for a place.");
    const auto& cached =
        metrics_.Gauge("retro_cache_blocks", "Cache blocks that generations with a place have a claim to.");
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (running.Value() + waiting.Value() + cached.Value() > 0 && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(milliseconds(2));
    EXPECT_EQ(running.Value(), 0);
    EXPECT_EQ(waiting.Value(), 0);
    EXPECT_EQ(cached.Value(), 0);
  }

  FakeRetriever retriever_;
  Metrics metrics_;
  std::unique_ptr<Generator> generator_;
  std::unique_ptr<pb::GeneratorService::Stub> stub_;
};

TEST_F(ConcurrentStreamsTest, AThirdIsCancelledAndTheOthersGetWhatTheyGetAlone) {
  std::vector<std::vector<TokenId>> alone;
  for (int prompt = 0; prompt < kPrompts; ++prompt) {
    absl::Status status;
    alone.push_back(Generate(prompt, -1, &status));
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(alone.back().size(), kTokens);
  }
  retriever_.SetDelay(milliseconds(2));
  std::mt19937 random(20);
  std::vector<std::thread> callers;
  callers.reserve(kStreams);
  for (int i = 0; i < kStreams; ++i) {
    const int events = i % 3 == 0 ? static_cast<int>(random() % (kTokens + 6)) : -1;
    callers.emplace_back([this, i, events, &alone] {
      absl::Status status;
      const std::vector<TokenId> ids = Generate(i % kPrompts, events, &status);
      const std::vector<TokenId>& expected = alone[static_cast<size_t>(i % kPrompts)];
      if (events < 0) {
        EXPECT_TRUE(status.ok()) << status;
        EXPECT_EQ(ids, expected);
      } else {
        ASSERT_LE(ids.size(), expected.size());
        EXPECT_TRUE(std::equal(ids.begin(), ids.end(), expected.begin()));
      }
    });
  }
  for (int turn = 0; turn < 10; ++turn) {  // longer than this the retriever is never full: the look-ups have time
    retriever_.SetStatus(turn % 2 == 0 ? ToGrpcStatus(QueueFullError("the queue", milliseconds(3))) : grpc::Status::OK);
    std::this_thread::sleep_for(milliseconds(10));
  }
  for (std::thread& caller : callers) caller.join();
  AwaitNoSessions();
}

TEST_F(ConcurrentStreamsTest, AStopInTheMiddleEndsEveryStream) {
  retriever_.SetDelay(milliseconds(5));
  std::atomic<int> answered{0};
  std::vector<std::thread> callers;
  callers.reserve(kStreams / 2);
  for (int i = 0; i < kStreams / 2; ++i) {
    callers.emplace_back([this, i, &answered] {
      absl::Status status;
      const bool came = !Generate(i % kPrompts, -1, &status).empty();
      const bool is_ours = status.ok() || absl::IsUnavailable(status);
      if (is_ours) ++answered;
      // gRPC itself cancels a call that has not come to us when the server stops.
      EXPECT_TRUE(is_ours || (absl::IsCancelled(status) && !came)) << status;
    });
  }
  while (retriever_.requests().size() < 3) std::this_thread::yield();
  generator_->Stop();
  for (std::thread& caller : callers) caller.join();
  EXPECT_GE(answered, kStreams / 4);  // most of them have come by then
}

}  // namespace
}  // namespace retro
