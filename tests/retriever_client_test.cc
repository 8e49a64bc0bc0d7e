// The generator's look-ups against a fake retriever: what goes out together, what comes back to whom, and what happens
// when the retriever is full, refuses or dawdles.
#include "generator_service/serve/retriever_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/header.h"
#include "common/rpc/status.h"
#include "generator_service/serve/retriever_probe.h"
#include "tests/fake_retriever.h"
#include "tests/tiny_served_model.h"

namespace retro {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// Answers as they come, by look-up.
class Answers {
 public:
  NeighbourSource::Callback Callback() {
    return [this](uint64_t lookup, absl::StatusOr<LookupAnswer> answer) {
      MutexLock lock(mutex_);
      EXPECT_TRUE(answers_.emplace(lookup, std::move(answer)).second) << "answered twice";
      changed_.NotifyAll();
    };
  }
  absl::StatusOr<LookupAnswer> Await(uint64_t lookup) {
    MutexLock lock(mutex_);
    while (!answers_.contains(lookup)) changed_.Wait(mutex_);
    return answers_.at(lookup);
  }
  // The same, and keeps nothing of it.
  absl::StatusOr<LookupAnswer> Take(uint64_t lookup) {
    absl::StatusOr<LookupAnswer> answer = Await(lookup);
    MutexLock lock(mutex_);
    answers_.erase(lookup);
    return answer;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::map<uint64_t, absl::StatusOr<LookupAnswer>> answers_ ABSL_GUARDED_BY(mutex_);
};

class RetrieverClientTest : public testing::Test {
 protected:
  RetrieverClientTest() : retriever_(std::string(32, 'b')) { Connect(retriever_.address()); }

  void Connect(const std::string& target) {
    client_ =
        std::make_unique<RetrieverClient>(*MakeRetrieverChannel(target), target, model_, tokens_, store_, budget_);
  }

  static std::shared_ptr<RetrievalScope> Scope(uint32_t k) {
    auto scope = std::make_shared<RetrievalScope>();
    scope->search.set_k(k);
    scope->search_key = scope->search.SerializeAsString();
    return scope;
  }

  static LookupRequest Request(uint64_t lookup, const std::vector<std::string>& chunks,
                               const std::shared_ptr<RetrievalScope>& scope) {
    LookupRequest request;
    request.lookup = lookup;
    for (const std::string& chunk : chunks) {
      request.chunks.push_back({static_cast<int64_t>(request.chunks.size()), Ids(chunk)});
    }
    request.scope = scope;
    request.deadline = Clock::now() + std::chrono::seconds(30);
    request.request_id = "id" + std::to_string(lookup);
    return request;
  }

  // Text of the nearest neighbour of each chunk, which tells the query that it answers.
  static std::vector<std::string> Nearest(const absl::StatusOr<LookupAnswer>& answer) {
    std::vector<std::string> texts;
    if (!answer.ok()) return {std::string(answer.status().message())};
    for (const FoundNeighbours& found : answer->chunks) {
      const auto& shown = static_cast<const ShownNeighbours&>(*found.details).message;
      texts.push_back(shown.neighbours().empty() ? "" : shown.neighbours(0).chunk().text());
    }
    return texts;
  }

  FakeRetriever retriever_;
  const ServedModel model_ = TinyServedModel();
  ByteTokenizer tokenizer_;
  NeighbourTokens tokens_{tokenizer_, {8, 16, 260, 0}, 100};
  StoreView store_{model_};
  ByteBudget budget_{100'000};
  Answers answers_;
  std::unique_ptr<RetrieverClient> client_;
};

TEST_F(RetrieverClientTest, EqualLookupsOfOneMomentAreOneCall) {
  client_->Lookup({Request(1, {"a", "b"}, Scope(2)), Request(2, {"c"}, Scope(2)), Request(3, {"d"}, Scope(3))},
                  answers_.Callback());
  EXPECT_THAT(Nearest(answers_.Await(1)), testing::ElementsAre("n0:a", "n0:b"));
  EXPECT_THAT(Nearest(answers_.Await(2)), testing::ElementsAre("n0:c"));
  EXPECT_THAT(Nearest(answers_.Await(3)), testing::ElementsAre("n0:d"));
  EXPECT_EQ(answers_.Await(3)->chunks[0].rows.count, 3);
  const auto requests = retriever_.requests();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_THAT((std::vector<int>{requests[0].queries_size(), requests[1].queries_size()}),
              testing::UnorderedElementsAre(3, 1));
  EXPECT_THAT(retriever_.request_ids(), testing::UnorderedElementsAre("id1,id2", "id3"));
}

TEST_F(RetrieverClientTest, RequestIdsTravelAsFarAsThereIsRoom) {
  LookupRequest longest = Request(1, {"a"}, Scope(1));
  longest.request_id = std::string(kRequestIdBytesMax, 'x');
  client_->Lookup({longest}, answers_.Callback());
  EXPECT_TRUE(answers_.Await(1).ok());
  EXPECT_THAT(retriever_.request_ids(), testing::ElementsAre(longest.request_id));

  std::vector<LookupRequest> several;
  for (uint64_t lookup = 2; lookup <= 4; ++lookup) several.push_back(Request(lookup, {"a"}, Scope(1)));
  several[0].request_id = std::string(kRequestIdBytesMax - 4, 'y');
  client_->Lookup(several, answers_.Callback());  // of "id3" and "id4" one fits behind it
  for (uint64_t lookup = 2; lookup <= 4; ++lookup) EXPECT_TRUE(answers_.Await(lookup).ok());
  EXPECT_EQ(retriever_.request_ids().back(), several[0].request_id + ",id3");
}

TEST_F(RetrieverClientTest, ALongPromptsChunksAreNotWaitedForByOthersAndGoOutInPieces) {
  std::vector<std::string> many;
  many.reserve(600);
  for (int i = 0; i < 600; ++i) many.push_back(std::to_string(i));
  client_->Lookup({Request(1, {"a"}, Scope(1)), Request(2, many, Scope(1)), Request(3, {"b"}, Scope(1))},
                  answers_.Callback());
  const std::vector<std::string> nearest = Nearest(answers_.Await(2));
  ASSERT_EQ(nearest.size(), 600U);
  for (size_t i = 0; i < 600; ++i) EXPECT_EQ(nearest[i], "n0:" + std::to_string(i));
  EXPECT_THAT(Nearest(answers_.Await(1)), testing::ElementsAre("n0:a"));
  EXPECT_THAT(Nearest(answers_.Await(3)), testing::ElementsAre("n0:b"));
  const auto requests = retriever_.requests();
  std::vector<int> sizes;
  sizes.reserve(requests.size());
  for (const auto& request : requests) sizes.push_back(request.queries_size());
  EXPECT_THAT(sizes, testing::UnorderedElementsAre(2, 256, 256, 88));
}

// A neighbour's title has 10,000 bytes, and there is room for 100,000.
TEST_F(RetrieverClientTest, WhatIsFoundIsHeldForAsLongAsItIsKept) {
  retriever_.SetTitle(std::string(10'000, 't'));
  client_->Lookup({Request(1, {"a", "b"}, Scope(3))}, [this](uint64_t lookup, absl::StatusOr<LookupAnswer> answer) {
    EXPECT_GE(budget_.bytes(), 60'000U);
    answers_.Callback()(lookup, std::move(answer));
  });
  {
    const absl::StatusOr<LookupAnswer> kept = answers_.Take(1);
    ASSERT_TRUE(kept.ok()) << kept.status();
    client_->Lookup({Request(2, {"c", "d"}, Scope(3))}, answers_.Callback());
    const absl::Status full = answers_.Take(2).status();
    EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReasonOf(full), Reason::kQueueFull);

    const auto scope = Scope(3);
    scope->go_on_without = true;
    client_->Lookup({Request(3, {"c", "d"}, scope)}, answers_.Callback());
    const absl::StatusOr<LookupAnswer> partial = answers_.Take(3);
    ASSERT_TRUE(partial.ok()) << partial.status();
    EXPECT_EQ(partial->chunks[0].rows.count, 3);
    EXPECT_EQ(partial->chunks[1].rows.count, 0);
    EXPECT_EQ(partial->chunks[1].degradation, Degradation::kUnavailable);
    EXPECT_THAT(partial->chunks[1].degradation_message, HasSubstr("memory"));
  }
  client_.reset();  // it has let go of its answers
  EXPECT_EQ(budget_.bytes(), 0U);
}

TEST_F(RetrieverClientTest, ACallsLookupsFailEachForItself) {
  retriever_.SetRefusedText("bad");
  client_->Lookup({Request(1, {"good"}, Scope(1)), Request(2, {"bad"}, Scope(1)), Request(3, {"fine"}, Scope(1))},
                  answers_.Callback());
  EXPECT_THAT(Nearest(answers_.Await(1)), testing::ElementsAre("n0:good"));
  EXPECT_THAT(Nearest(answers_.Await(3)), testing::ElementsAre("n0:fine"));
  EXPECT_EQ(answers_.Await(2).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RetrieverClientTest, WhoIsCancelledDropsOutAndTheCallGoesOnForTheOthers) {
  retriever_.SetDelay(milliseconds(60'000));
  client_->Lookup({Request(1, {"a"}, Scope(1)), Request(2, {"b"}, Scope(1))}, answers_.Callback());
  while (retriever_.requests().empty()) std::this_thread::yield();
  client_->CancelLookup(1);
  retriever_.SetDelay(milliseconds(0));
  EXPECT_THAT(Nearest(answers_.Await(2)), testing::ElementsAre("n0:b"));
  EXPECT_EQ(answers_.Await(1).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(retriever_.cancelled(), 0);

  retriever_.SetDelay(milliseconds(60'000));
  client_->Lookup({Request(3, {"a"}, Scope(1)), Request(4, {"b"}, Scope(1))}, answers_.Callback());
  while (retriever_.requests().size() < 2) std::this_thread::yield();
  client_->CancelLookup(3);
  client_->CancelLookup(4);
  EXPECT_EQ(answers_.Await(3).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(answers_.Await(4).status().code(), absl::StatusCode::kCancelled);
  while (retriever_.cancelled() == 0) std::this_thread::yield();
}

TEST_F(RetrieverClientTest, AFullRetrieverIsAskedAgainWhileThereIsTime) {
  retriever_.SetStatus(ToGrpcStatus(QueueFullError("the queue", milliseconds(20))));
  client_->Lookup({Request(1, {"a"}, Scope(1))}, answers_.Callback());
  while (retriever_.requests().size() < 3) std::this_thread::yield();
  retriever_.SetStatus(grpc::Status::OK);
  EXPECT_THAT(Nearest(answers_.Await(1)), testing::ElementsAre("n0:a"));
}

TEST_F(RetrieverClientTest, ARetrieverThatStaysFullSaysWhenToComeBack) {
  retriever_.SetStatus(ToGrpcStatus(QueueFullError("the queue", milliseconds(3000))));
  LookupRequest request = Request(1, {"a"}, Scope(1));
  request.deadline = Clock::now() + milliseconds(1000);
  client_->Lookup({request}, answers_.Callback());
  const absl::Status full = answers_.Await(1).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), Reason::kQueueFull);
  EXPECT_EQ(RetryAfterOf(full), std::optional(milliseconds(3000)));
  EXPECT_THAT(std::string(full.message()), HasSubstr("refused: the queue is full"));
  EXPECT_EQ(retriever_.requests().size(), 1U);
}

// Two of them, of which one stops in the middle of what it was asked.
TEST_F(RetrieverClientTest, WhatOneThatStopsLeavesUnansweredIsAskedOfAnother) {
  FakeRetriever other(std::string(32, 'b'));
  Connect(StrCat("ipv4:", retriever_.address(), ",", other.address()));
  retriever_.SetDelay(milliseconds(60'000));
  uint64_t lookup = 0;
  while (retriever_.requests().empty()) {  // its turn comes
    client_->Lookup({Request(++lookup, {"a"}, Scope(1))}, answers_.Callback());
    std::this_thread::sleep_for(milliseconds(10));
  }
  retriever_.Stop();
  for (; lookup > 0; --lookup) EXPECT_THAT(Nearest(answers_.Await(lookup)), testing::ElementsAre("n0:a"));
}

TEST_F(RetrieverClientTest, AnAnswerThatIsLostIsAskedForAgain) {
  for (const grpc::StatusCode code : {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED}) {
    const auto scope = Scope(1);
    scope->search.set_collection("that GetInfo does not name");  // so that it is asked each time
    const size_t before = retriever_.requests().size();
    retriever_.SetInfoStatus({code, "gone"});
    retriever_.SetNextStatus({code, "gone"});
    const auto lookup = static_cast<uint64_t>(code);
    client_->Lookup({Request(lookup, {"a"}, scope)}, answers_.Callback());
    EXPECT_THAT(Nearest(answers_.Await(lookup)), testing::ElementsAre("n0:a"));
    EXPECT_EQ(retriever_.requests().size(), before + 2);
  }
}

TEST_F(RetrieverClientTest, OneThatIsGoneForGoodIsSaidInTime) {
  retriever_.Stop();
  const LookupRequest patient = Request(1, {"a"}, Scope(1));
  client_->Lookup({patient}, answers_.Callback());
  const absl::Status gone = answers_.Await(1).status();
  EXPECT_LT(Clock::now(), patient.deadline);
  EXPECT_EQ(gone.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(gone), Reason::kRetrievalFailed);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("is retro-retriever running there?"));

  LookupRequest hasty = Request(2, {"a"}, Scope(1));
  hasty.deadline = Clock::now() + milliseconds(50);  // no time for all tries
  client_->Lookup({hasty}, answers_.Callback());
  EXPECT_EQ(ReasonOf(answers_.Await(2).status()), Reason::kRetrievalFailed);
}

TEST_F(RetrieverClientTest, ACancelEndsThePauseBeforeTheNextTry) {
  retriever_.SetStatus(ToGrpcStatus(QueueFullError("the queue", milliseconds(20'000))));
  client_->Lookup({Request(1, {"a"}, Scope(1))}, answers_.Callback());
  while (retriever_.requests().empty()) std::this_thread::yield();
  std::this_thread::sleep_for(milliseconds(5));  // the pause may or may not have begun; both must end
  client_->CancelLookup(1);
  EXPECT_EQ(answers_.Await(1).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(RetrieverClientTest, WhatIsUnderWayEndsWithTheClient) {
  retriever_.SetDelay(milliseconds(60'000));
  client_->Lookup({Request(1, {"a"}, Scope(1))}, answers_.Callback());
  while (retriever_.requests().empty()) std::this_thread::yield();
  client_.reset();
  EXPECT_EQ(answers_.Await(1).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(RetrieverClientTest, AProbeThatEndsWaitsForNoAnswer) {
  retriever_.SetInfoDelay(milliseconds(60'000));
  int looks = 0;
  auto probe = std::make_unique<RetrieverProbe>(*client_, store_, milliseconds(60'000), [&](bool) { ++looks; });
  while (retriever_.info_calls() == 0) std::this_thread::yield();
  const Clock::time_point begin = Clock::now();
  probe.reset();
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(20));
  EXPECT_EQ(looks, 0) << "it told of a retriever that does not answer";
}

}  // namespace
}  // namespace retro
