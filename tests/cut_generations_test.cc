// Generations that are cut before their end: what is counted of them all the same, since under overload there are few
// others.
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "tests/generator_fixture.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

class CutGenerationsTest : public GeneratorServiceTest {
 protected:
  using Reader = grpc::ClientReader<generator::v1::GenerateResponse>;

  // One generation that has the only place, has given a few tokens, and waits for neighbours that do not come.
  void ServeAndHoldThePlace() {
    Serve(retriever_.address(), {.sessions_max = 1, .waiting_max = 16});
    retriever_.SetDelay(milliseconds(60'000));
    auto request = Request("unread", 100);
    request.mutable_retrieval()->add_neighbours()->set_chunk_number(0);
    holder_ = stub_->Generate(&holders_, request);
    while (retriever_.requests().empty()) std::this_thread::yield();
  }
  void LetGo() {
    holders_.TryCancel();
    EXPECT_EQ(holder_->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }

  // Waits for a place for so long, and gives up.
  void GiveUpAfter(milliseconds time) {
    auto request = Request("gives up", 3);
    request.mutable_retrieval()->set_enabled(false);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + time);
    EXPECT_EQ(Generate(request, &context).status.code(), absl::StatusCode::kDeadlineExceeded);
  }

  prometheus::ClientMetric::Histogram Histogram(const std::string& name) {
    for (const prometheus::MetricFamily& family : metrics_.Collect()) {
      if (family.name == name) return family.metric.at(0).histogram;
    }
    ADD_FAILURE() << "no " << name;
    return {};
  }
  double Answered(const std::string& code) {
    return metrics_
        .Counter("retro_requests_total", "Requests answered, by method and code.",
                 {{"method", "Generate"}, {"code", code}})
        .Value();
  }
  static bool Eventually(const std::function<bool()>& holds) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!holds()) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(milliseconds(2));
    }
    return true;
  }

 private:
  grpc::ClientContext holders_;
  std::unique_ptr<Reader> holder_;
};

TEST_F(CutGenerationsTest, TheirWaitsAndFirstTokensAreCounted) {
  ServeAndHoldThePlace();
  EXPECT_EQ(Histogram("retro_session_wait_seconds").sample_count, 1U) << "when the place is given";
  EXPECT_EQ(Histogram("retro_time_to_first_token_seconds").sample_count, 1U) << "when the token goes out";
  GiveUpAfter(milliseconds(1000));
  EXPECT_TRUE(Eventually([&] { return Histogram("retro_session_wait_seconds").sample_count == 2; }));
  EXPECT_GT(Histogram("retro_session_wait_seconds").sample_sum, 0.25);
  LetGo();
  ASSERT_TRUE(Eventually(
      [&] { return metrics_.Gauge("retro_sessions_running", "Generations that have a place.").Value() == 0; }));
  EXPECT_EQ(Histogram("retro_session_wait_seconds").sample_count, 2U);
  EXPECT_EQ(Histogram("retro_time_to_first_token_seconds").sample_count, 1U);
}

// gRPC tells a server of so odd a time as if it were a little longer: the client's reset comes before its end.
TEST_F(CutGenerationsTest, WhatTimesOutCountsAsThat) {
  constexpr int kCalls = 12, kTries = 3;
  ServeAndHoldThePlace();
  double cancelled = kCalls;
  for (int tries = 0; tries < kTries && cancelled > 0; ++tries) {  // of a call that took long to come it is not known
    const double before = Answered("CANCELLED"), all = before + Answered("DEADLINE_EXCEEDED") + kCalls;
    std::vector<std::thread> callers;
    callers.reserve(kCalls);
    for (int i = 0; i < kCalls; ++i) callers.emplace_back([this, i] { GiveUpAfter(milliseconds(1021 + 20 * i)); });
    for (std::thread& caller : callers) caller.join();
    EXPECT_TRUE(Eventually([&] { return Answered("DEADLINE_EXCEEDED") + Answered("CANCELLED") == all; }));
    cancelled = Answered("CANCELLED") - before;
  }
  EXPECT_EQ(cancelled, 0);
  const double before = Answered("CANCELLED");
  LetGo();
  EXPECT_TRUE(Eventually([&] { return Answered("CANCELLED") == before + 1; }));
}

}  // namespace
}  // namespace retro
