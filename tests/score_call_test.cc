// Score over gRPC, with a tiny model and a fake retriever: several items at once.
#include "generator_service/serve/score_call.h"

#include <gmock/gmock.h>

#include <functional>
#include <thread>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "tests/generator_fixture.h"
#include "tests/unread_call.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;
using std::chrono::milliseconds;

class ScoreCallTest : public GeneratorServiceTest {
 protected:
  // Items of one chunk of context each; the continuation tells which one it is.
  static pb::ScoreRequest Items(int count) {
    pb::ScoreRequest request;
    for (int i = 0; i < count; ++i) {
      pb::ScoreItem* item = request.add_items();
      item->set_context_text("item " + std::to_string(i));
      item->set_continuation_text("no. " + std::to_string(i));
    }
    request.mutable_retrieval()->mutable_timeout()->set_seconds(30);
    return request;
  }

  absl::Status Score(const pb::ScoreRequest& request, grpc::ClientContext& context) {
    return FromGrpcStatus(stub_->Score(&context, request, &response_));
  }
  absl::Status Score(const pb::ScoreRequest& request) {
    grpc::ClientContext context;
    return Score(request, context);
  }

  // The items that are under way while no look-up is answered.
  int UnderWay(const pb::ScoreRequest& request, int expected) {
    retriever_.SetDelay(milliseconds(60'000));
    const int before = retriever_.queries();
    grpc::ClientContext context;
    absl::Status status;
    std::thread caller([&] { status = Score(request, context); });
    EXPECT_TRUE(Eventually([&] { return retriever_.queries() - before >= expected; }));
    std::this_thread::sleep_for(milliseconds(20));  // for more than that, if there were any
    const int queries = retriever_.queries() - before;
    context.TryCancel();
    caller.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
    retriever_.SetDelay(milliseconds(0));
    return queries;
  }

  static bool Eventually(const std::function<bool()>& holds) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!holds()) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return true;
  }

  // Bytes of requests and replies in memory.
  double Held() {
    metrics_.Collect();
    return metrics_.Gauge("retro_request_bytes", "Bytes of requests and replies in memory, of --request-bytes-max.")
        .Value();
  }

  pb::ScoreResponse response_;
};

TEST_F(ScoreCallTest, SomeItemsAreUnderWayAtOnce) {
  Serve();
  EXPECT_EQ(UnderWay(Items(10), 4), 4);
}

TEST_F(ScoreCallTest, ItemsTakeNoPlacesThatOthersWouldWaitFor) {
  Serve(retriever_.address(), {.sessions_max = 2, .waiting_max = 8});
  EXPECT_EQ(UnderWay(Items(10), 2), 2);
}

TEST_F(ScoreCallTest, ACancelledCallLeavesNoPlaceTaken) {
  Serve(retriever_.address(), {.sessions_max = 4, .waiting_max = 0});
  for (int i = 0; i < 5; ++i) {
    EXPECT_GE(UnderWay(Items(10), 1), 1);
    EXPECT_TRUE(Eventually([&] { return Score(Items(10)).ok(); }));
  }
}

TEST_F(ScoreCallTest, ResultsAreInTheOrderOfTheItemsAndAsOfEachAlone) {
  Serve();
  pb::ScoreRequest request = Items(13);
  // Some take longer than those after them.
  for (int i = 0; i < 13; i += 3) request.mutable_items(i)->set_continuation_text(std::string(60, 'a' + i));
  ASSERT_TRUE(Score(request).ok());
  const pb::ScoreResponse together = response_;
  ASSERT_EQ(together.results_size(), 13);
  for (int i = 0; i < 13; ++i) {
    pb::ScoreRequest one = request;
    one.mutable_items()->Clear();
    *one.add_items() = request.items(i);
    ASSERT_TRUE(Score(one).ok());
    const pb::ScoreResult& alone = response_.results(0);
    std::string text;
    for (const std::string& raw : together.results(i).raw()) text += raw;
    EXPECT_EQ(text, request.items(i).continuation_text());
    EXPECT_EQ(together.results(i).total_logprob(), alone.total_logprob()) << i;
    ASSERT_EQ(together.results(i).retrievals_size(), alone.retrievals_size());
    EXPECT_EQ(together.results(i).retrievals(0).neighbours().SerializeAsString(),
              alone.retrievals(0).neighbours().SerializeAsString());
  }
}

TEST_F(ScoreCallTest, WhatAReplyHoldsThatNobodyReadsIsGivenBack) {
  constexpr size_t kText = 4 << 20;
  Serve(retriever_.address(), {.stall_ms_max = milliseconds(2000)});
  pb::ScoreRequest request = Items(1);
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  given->set_chunk_number(0);
  given->add_neighbours()->mutable_chunk()->set_text(std::string(kText, 'x'));  // comes back in the reply
  const UnreadCall unread(StrCat("127.0.0.1:", generator_->port()), "/retro.generator.v1.GeneratorService/Score",
                          request);
  EXPECT_GE(Held(), 2 * kText);
  EXPECT_TRUE(Eventually([&] { return Held() == 0; }));
}

// Few bytes, which are a hundred times as many in the events of all items.
TEST_F(ScoreCallTest, WhatAReplysEventsTakeIsBounded) {
  Serve(retriever_.address(), {}, milliseconds(3000), {.request_bytes_max = 10'000'000});
  pb::ScoreRequest request = Items(40);
  pb::ChunkNeighbours* given = request.mutable_retrieval()->add_neighbours();
  given->add_neighbours()->mutable_chunk()->set_text("given");
  FillMetadata(*given->mutable_neighbours(0));
  EXPECT_EQ(ReasonOf(Score(request)), Reason::kQueueFull);
  EXPECT_TRUE(Eventually([&] { return Held() == 0; }));
  request.mutable_items()->DeleteSubrange(4, 36);
  EXPECT_TRUE(Score(request).ok());
}

TEST_F(ScoreCallTest, OneItemsErrorIsTheCalls) {
  Serve(retriever_.address(), {.sessions_max = 4, .waiting_max = 0});
  retriever_.SetRefusedText("item 5");
  for (int i = 0; i < 5; ++i) {
    const absl::Status refused = Score(Items(10));
    if (refused.code() == absl::StatusCode::kResourceExhausted) continue;  // the last one is just leaving
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  }
  retriever_.SetRefusedText("");
  EXPECT_TRUE(Eventually([&] { return Score(Items(10)).ok(); }));
  EXPECT_EQ(response_.results_size(), 10);
}

}  // namespace
}  // namespace retro
