#include "retriever_service/embed/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "common/base/error.h"
#include "retriever_service/embed/hash_embedder.h"

namespace retro {
namespace {

using ::testing::ElementsAre;
using Clock = std::chrono::steady_clock;
using Outcome = std::future<absl::StatusOr<EmbedReply>>;

// A sequence's vector is {first id, length}. Records the batches (the first ids of each) and can be held up.
class FakeEmbedder : public Embedder {
 public:
  struct Record {
    Mutex mutex;
    CondVar changed;
    bool held ABSL_GUARDED_BY(mutex) = false;
    int permits ABSL_GUARDED_BY(mutex) = 0;  // batches that may pass although held
    bool inside ABSL_GUARDED_BY(mutex) = false;
    absl::Status error ABSL_GUARDED_BY(mutex);
    std::vector<std::vector<TokenId>> batches ABSL_GUARDED_BY(mutex);
  };

  explicit FakeEmbedder(std::shared_ptr<Record> record) : record_(std::move(record)) {
    info_ = {.name = "fake", .fingerprint = std::string(32, 'f'), .dimension = 2, .max_tokens = 1000};
  }
  const EmbedderInfo& info() const override { return info_; }
  TokenSequence Encode(std::string_view text, TextKind) const override { return TokenSequence(text.size(), 1); }

  absl::StatusOr<std::vector<float>> Embed(std::span<const TokenSequence> sequences) override {
    MutexLock lock(record_->mutex);
    record_->inside = true;
    record_->changed.NotifyAll();
    while (record_->held && record_->permits == 0) record_->changed.Wait(record_->mutex);
    record_->permits = std::max(0, record_->permits - 1);
    record_->inside = false;
    std::vector<float> vectors;
    std::vector<TokenId>& batch = record_->batches.emplace_back();
    for (const TokenSequence& sequence : sequences) {
      batch.push_back(sequence[0]);
      vectors.push_back(static_cast<float>(sequence[0]));
      vectors.push_back(static_cast<float>(sequence.size()));
    }
    if (!record_->error.ok()) return record_->error;
    return vectors;
  }

 private:
  std::shared_ptr<Record> record_;
  EmbedderInfo info_;
};

class BatcherTest : public ::testing::Test {
 protected:
  void Start(const BatcherLimits& limits) {
    batcher_ = std::make_unique<EmbedBatcher>(std::make_unique<FakeEmbedder>(record_), limits);
  }

  // Keeps the compute thread inside a batch of one, so that what is submitted next waits together.
  Outcome Hold() {
    {
      MutexLock lock(record_->mutex);
      record_->held = true;
    }
    Outcome outcome = Submit({{0}}, EmbedPriority::kQuery);
    MutexLock lock(record_->mutex);
    while (!record_->inside) record_->changed.Wait(record_->mutex);
    return outcome;
  }

  // Returns when the compute thread is inside the next batch, held again.
  void LetOnePass() {
    MutexLock lock(record_->mutex);
    const size_t before = record_->batches.size();
    record_->permits = 1;
    record_->changed.NotifyAll();
    while (record_->batches.size() == before || !record_->inside) record_->changed.Wait(record_->mutex);
  }

  void Release() {
    MutexLock lock(record_->mutex);
    record_->held = false;
    record_->changed.NotifyAll();
  }

  Outcome Submit(std::vector<TokenSequence> sequences, EmbedPriority priority,
                 Clock::time_point deadline = Clock::time_point::max(), std::function<bool()> cancelled = nullptr,
                 std::string key = "") {
    auto promise = std::make_shared<std::promise<absl::StatusOr<EmbedReply>>>();
    batcher_->Submit({.sequences = std::move(sequences),
                      .priority = priority,
                      .key = std::move(key),
                      .deadline = deadline,
                      .cancelled = std::move(cancelled),
                      .done = [promise](absl::StatusOr<EmbedReply> reply) { promise->set_value(std::move(reply)); }});
    return promise->get_future();
  }

  Outcome SubmitFor(const std::string& key, std::vector<TokenSequence> sequences) {
    return Submit(std::move(sequences), EmbedPriority::kQuery, Clock::time_point::max(), nullptr, key);
  }

  std::vector<std::vector<TokenId>> batches() {
    MutexLock lock(record_->mutex);
    return record_->batches;
  }

  std::shared_ptr<FakeEmbedder::Record> record_ = std::make_shared<FakeEmbedder::Record>();
  std::unique_ptr<EmbedBatcher> batcher_;  // last: its thread uses the others
};

constexpr EmbedPriority kQuery = EmbedPriority::kQuery;
constexpr EmbedPriority kIngest = EmbedPriority::kIngest;

// `length` tokens that begin with `id`.
TokenSequence Sequence(TokenId id, size_t length) {
  TokenSequence sequence(length, 7);
  sequence[0] = id;
  return sequence;
}

TEST_F(BatcherTest, QueriesGoBeforeIngestAndLongSequencesFirst) {
  Start({});
  Outcome held = Hold();
  Outcome ingest = Submit({Sequence(1, 3), Sequence(2, 5)}, kIngest);
  Outcome query = Submit({Sequence(3, 1), Sequence(4, 2)}, kQuery);
  Release();
  EXPECT_THAT(query.get()->vectors, ElementsAre(3, 1, 4, 2));
  EXPECT_THAT(ingest.get()->vectors, ElementsAre(1, 3, 2, 5));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(0), ElementsAre(4, 3), ElementsAre(2, 1)));
}

// However many queries come, and whoever sends them.
TEST_F(BatcherTest, IngestHasABatchBetweenManyOfQueries) {
  Start({.query_batch_tokens = 1, .ingest_batch_tokens = 1});
  Outcome held = Hold();
  Outcome ingest = Submit({{100}, {101}}, kIngest);
  constexpr TokenId kQueries = 2 * kQueryBatchesInARow + 3;
  std::vector<Outcome> queries;
  for (TokenId id = 1; id <= kQueries; ++id) queries.push_back(Submit({{id}}, kQuery));
  Release();
  EXPECT_TRUE(ingest.get().ok());
  for (Outcome& query : queries) EXPECT_TRUE(query.get().ok());
  std::vector<TokenSequence> wanted = {TokenSequence(1, 0)};
  for (TokenId id = 1; id <= kQueries; ++id) {
    wanted.push_back({id});
    if (id == kQueryBatchesInARow) wanted.push_back({100});
    if (id == 2 * kQueryBatchesInARow) wanted.push_back({101});
  }
  EXPECT_EQ(batches(), wanted);
}

TEST_F(BatcherTest, ABatchEndsAtItsTokensAndALargeRequestIsSplit) {
  Start({.query_batch_tokens = 10, .ingest_batch_tokens = 10});
  Outcome held = Hold();
  Outcome large = Submit({Sequence(1, 6), Sequence(2, 4), Sequence(3, 50), Sequence(4, 2)}, kIngest);
  Outcome small = Submit({Sequence(5, 8)}, kIngest);
  Release();
  EXPECT_THAT(large.get()->vectors, ElementsAre(1, 6, 2, 4, 3, 50, 4, 2));
  EXPECT_THAT(small.get()->vectors, ElementsAre(5, 8));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(0), ElementsAre(1, 2), ElementsAre(3, 5), ElementsAre(4)));
  EXPECT_EQ(batcher_->stats().tokens, 71u);
}

TEST_F(BatcherTest, AQueryIsServedBetweenThePartsOfALargeRequest) {
  Start({.ingest_batch_tokens = 4});
  Outcome held = Hold();
  Outcome large = Submit({Sequence(1, 4), Sequence(2, 4), Sequence(3, 4)}, kIngest);
  LetOnePass();
  Outcome query = Submit({Sequence(9, 1)}, kQuery);  // while the first part is being computed
  Release();
  ASSERT_TRUE(query.get().ok());
  EXPECT_THAT(large.get()->vectors, ElementsAre(1, 4, 2, 4, 3, 4));
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(9), ElementsAre(2), ElementsAre(3)));
}

TEST_F(BatcherTest, QueriesPastTheBoundAreRefusedAtOnce) {
  Start({.queued_queries_max = 3});
  Outcome held = Hold();
  Outcome first = Submit({{1}, {2}}, kQuery);
  Outcome second = Submit({{3}, {4}}, kQuery);
  const absl::Status refused = second.get().status();  // while the thread is held
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), Reason::kQueueFull);
  EXPECT_TRUE(RetryAfterOf(refused).has_value());
  Outcome third = Submit({{5}}, kQuery);
  EXPECT_EQ(batcher_->stats().queued_queries, 3u);
  EXPECT_EQ(batcher_->stats().refused, 1u);
  Release();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(third.get().ok());
}

TEST_F(BatcherTest, KeysTakeTurnsAndALongRequestLetsOthersOfItsKeyPass) {
  Start({.query_batch_tokens = 64});
  Outcome held = Hold();
  std::vector<TokenSequence> many;
  for (TokenId id = 1; id <= 70; ++id) many.push_back({id});
  Outcome large = SubmitFor("a", many);
  Outcome of_another = SubmitFor("b", {{200}});
  Outcome of_the_same = SubmitFor("a", {{201}});
  Release();
  EXPECT_THAT(of_another.get()->vectors, ElementsAre(200, 1));
  EXPECT_THAT(of_the_same.get()->vectors, ElementsAre(201, 1));
  const absl::StatusOr<EmbedReply> reply = large.get();
  ASSERT_TRUE(reply.ok());
  for (size_t i = 0; i < many.size(); ++i) EXPECT_EQ(reply->vectors[2 * i], static_cast<float>(i + 1));
  const auto order = batches();
  ASSERT_EQ(order.size(), 3u);
  ASSERT_EQ(order[1].size(), 64u);
  EXPECT_THAT((std::vector<TokenId>{order[1][31], order[1][32], order[1][33], order[1][34]}),
              ElementsAre(32, 200, 201, 33));
  EXPECT_EQ(batcher_->stats().queued_queries, 0u);
}

TEST_F(BatcherTest, AKeyLeavesRoomForOthers) {
  Start({.queued_queries_max = 100});
  Outcome held = Hold();
  Outcome large = SubmitFor("a", std::vector<TokenSequence>(71, {1}));
  EXPECT_EQ(ReasonOf(SubmitFor("a", std::vector<TokenSequence>(20, {1})).get().status()), Reason::kQueueFull);
  Outcome of_another = SubmitFor("b", std::vector<TokenSequence>(20, {2}));
  Release();
  EXPECT_TRUE(large.get().ok());
  EXPECT_TRUE(of_another.get().ok());
}

TEST_F(BatcherTest, IngestWaitsForRoomAndOneThatIsTooLargeGetsInAlone) {
  Start({.ingest_batch_tokens = 2, .queued_ingest_max = 2});
  Outcome held = Hold();
  Outcome large = Submit({{1}, {2}, {3}, {4}}, kIngest);  // beyond the bound, but nobody waits
  auto waiting = std::async(std::launch::async, [&] { return Submit({{5}, {6}}, kIngest).get(); });
  EXPECT_EQ(waiting.wait_for(std::chrono::milliseconds(80)), std::future_status::timeout);
  EXPECT_EQ(batcher_->stats().queued_ingest, 4u);
  Release();
  EXPECT_THAT(waiting.get()->vectors, ElementsAre(5, 1, 6, 1));
  EXPECT_TRUE(large.get().ok());
}

TEST_F(BatcherTest, IngestThatWaitsForRoomEndsWithItsDeadlineOrCancellation) {
  Start({.queued_ingest_max = 1});
  Outcome held = Hold();
  Outcome first = Submit({{1}}, kIngest);
  Outcome late = Submit({{2}}, kIngest, Clock::now() + std::chrono::milliseconds(20));
  const absl::Status too_late = late.get().status();
  EXPECT_EQ(too_late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ReasonOf(too_late), Reason::kCallerGone);
  int asked = 0;
  Outcome left = Submit({{3}}, kIngest, Clock::time_point::max(), [&] { return ++asked > 1; });
  EXPECT_EQ(left.get().status().code(), absl::StatusCode::kCancelled);
  Release();
  EXPECT_TRUE(first.get().ok());
}

TEST_F(BatcherTest, WhoHasLeftIsDroppedWhenTakenOut) {
  Start({});
  std::atomic<bool> left = false;
  Outcome held = Hold();
  Outcome cancelled = Submit({{1}}, kQuery, Clock::time_point::max(), [&] { return left.load(); });
  Outcome late = Submit({{2}}, kQuery, Clock::now() + std::chrono::milliseconds(10));
  Outcome stays = Submit({{3}}, kQuery);
  left = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(15));
  Release();
  EXPECT_EQ(cancelled.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(late.get().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(stays.get().ok());
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(0), ElementsAre(3)));
  EXPECT_EQ(batcher_->stats().dropped, 2u);
  EXPECT_EQ(batcher_->stats().queued_queries, 0u);
}

TEST_F(BatcherTest, AFailureReachesAllOfTheBatchOnceAndTheNextIsServed) {
  Start({.ingest_batch_tokens = 2});
  Outcome held = Hold();
  Outcome split = Submit({{1}, {2}, {3}}, kIngest);
  {
    MutexLock lock(record_->mutex);
    record_->error = absl::InternalError("broken");
  }
  Release();
  EXPECT_EQ(held.get().status().message(), "broken");
  EXPECT_EQ(split.get().status().message(), "broken");
  {
    MutexLock lock(record_->mutex);
    record_->error = absl::OkStatus();
  }
  EXPECT_TRUE(Submit({{4}}, kIngest).get().ok());
  EXPECT_EQ(batcher_->stats().queued_ingest, 0u);
  EXPECT_THAT(batches(), ElementsAre(ElementsAre(0), ElementsAre(1, 2), ElementsAre(4)));  // not 3
}

TEST_F(BatcherTest, WhoLeavesBetweenTwoTurnsOfABatchThatFailsIsToldOnce) {
  Start({});
  {
    MutexLock lock(record_->mutex);
    record_->error = absl::InternalError("broken");
  }
  std::atomic<int> asked = 0;  // when it comes, before its first turn, before its second
  const auto leaves = [&asked] { return ++asked == 3; };
  Outcome outcome = Submit(std::vector<TokenSequence>(40, {1}), kIngest, Clock::time_point::max(), leaves);
  EXPECT_EQ(outcome.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Submit({{2}}, kIngest).get().status().message(), "broken") << "after the first's batch";
  EXPECT_EQ(batcher_->stats().queued_ingest, 0u);
}

TEST_F(BatcherTest, StopFailsWhatWaitsAndWhatComesAfter) {
  Start({.queued_ingest_max = 1});
  Outcome held = Hold();
  Outcome query = Submit({{1}}, kQuery);
  Outcome ingest = Submit({{2}}, kIngest);
  auto blocked = std::async(std::launch::async, [&] { return Submit({{3}}, kIngest).get(); });
  auto stop = std::async(std::launch::async, [&] { batcher_->Stop(); });
  EXPECT_EQ(blocked.get().status().code(), absl::StatusCode::kUnavailable);
  Release();
  stop.get();
  EXPECT_TRUE(held.get().ok());  // was being computed
  EXPECT_EQ(query.get().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ingest.get().status().code(), absl::StatusCode::kUnavailable);
  const absl::Status stopped = Submit({{4}}, kQuery).get().status();
  EXPECT_EQ(stopped.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(stopped), Reason::kShuttingDown);
  batcher_->Stop();
}

TEST_F(BatcherTest, NoCallbackIsLostUnderManyThreads) {
  Start({.ingest_batch_tokens = 8, .queued_queries_max = 4, .queued_ingest_max = 8});
  constexpr int kThreads = 4;
  constexpr int kRequests = 300;
  std::atomic<int> answers = 0;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRequests; ++i) {
        EmbedRequest request;
        request.priority = (i + t) % 2 == 0 ? kQuery : kIngest;
        request.sequences = {Sequence(i + 1, 2), Sequence(i + 2, 3)};
        request.done = [&answers, i](const absl::StatusOr<EmbedReply>& reply) {
          if (reply.ok()) {
            EXPECT_THAT(reply->vectors, ElementsAre(i + 1, 2, i + 2, 3));
          }
          ++answers;
        };
        batcher_->Submit(std::move(request));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  batcher_->Stop();
  EXPECT_EQ(answers, kThreads * kRequests);
}

TEST_F(BatcherTest, AnEmptyRequestIsAnsweredWithNoVectors) {
  Start({});
  EXPECT_TRUE(Submit({}, kQuery).get()->vectors.empty());
}

TEST(HashEmbedderTest, EqualTextsHaveEqualUnitVectorsAndOthersDiffer) {
  HashEmbedder embedder(128);
  const std::vector<TokenSequence> sequences = {embedder.Encode("a text", TextKind::kQuery),
                                                embedder.Encode("a text", TextKind::kPassage),
                                                embedder.Encode("a Text", TextKind::kPassage)};
  const std::vector<float> vectors = embedder.Embed(sequences).value();
  const auto dot = [&](size_t a, size_t b) {
    double sum = 0;
    for (size_t i = 0; i < 128; ++i) sum += double{vectors[a * 128 + i]} * vectors[b * 128 + i];
    return sum;
  };
  EXPECT_NEAR(dot(0, 0), 1.0, 1e-5);
  EXPECT_NEAR(dot(0, 1), 1.0, 1e-5);
  EXPECT_LT(std::abs(dot(0, 2)), 0.4);
  EXPECT_NE(embedder.info().fingerprint, HashEmbedder(64).info().fingerprint);
}

TEST(EmbedAndWaitTest, ReturnsTheVectorsWithTheirTimes) {
  EmbedBatcher batcher(std::make_unique<HashEmbedder>(8));
  const TokenSequence sequence = batcher.embedder().Encode("x", TextKind::kQuery);
  const auto reply = EmbedAndWait(batcher, {.sequences = {sequence}});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->vectors, HashEmbedder(8).Embed({&sequence, 1}).value());
  EXPECT_GE(reply->queue_seconds, 0);
  EXPECT_GE(reply->embed_seconds, 0);
}

}  // namespace
}  // namespace retro
