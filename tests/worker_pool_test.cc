#include "common/base/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace retro {
namespace {

// A pool of one thread that is held at its first work until Release().
class WorkerPoolTest : public testing::Test {
 protected:
  void Hold(size_t queue_max) {
    pool_ = std::make_unique<WorkerPool>(1, queue_max);
    const auto begun = std::make_shared<std::promise<void>>();  // until both are done with it
    ASSERT_TRUE(pool_->Submit([this, begun] {
      begun->set_value();
      released_.get_future().wait();
    }));
    begun->get_future().wait();
  }
  bool Add(const std::string& key, const std::string& name) {
    return pool_->Submit([this, name] { done_.push_back(name); }, key);
  }
  std::vector<std::string> Release() {
    released_.set_value();
    pool_->Stop();
    return done_;
  }

  std::unique_ptr<WorkerPool> pool_;
  std::promise<void> released_;
  std::vector<std::string> done_;
};

TEST_F(WorkerPoolTest, KeysTakeTurnsAndEachIsServedInOrder) {
  Hold(16);
  for (const char* name : {"a1", "a2", "a3"}) EXPECT_TRUE(Add("a", name));
  for (const char* name : {"b1", "b2"}) EXPECT_TRUE(Add("b", name));
  EXPECT_EQ(pool_->queued(), 5u);
  EXPECT_THAT(Release(), testing::ElementsAre("a1", "b1", "a2", "b2", "a3"));
}

TEST_F(WorkerPoolTest, WhoeverAsksForAllLeavesSomeToOthers) {
  Hold(19);
  int large = 0;
  while (Add("large", "l")) ++large;
  EXPECT_EQ(large, 16) << "four times what is free: of 20 places one is at work, 3 are left";
  EXPECT_TRUE(Add("small", "s1"));
  EXPECT_FALSE(Add("large", "l"));
  EXPECT_TRUE(Add("small", "s2"));
  EXPECT_EQ(Release()[1], "s1") << "the second to be served, not the last";
}

TEST(SeveralKeysTest, TwoHaveComeLatelyIfBothCameWithinAMinute) {
  const SeveralKeys::Clock::time_point start{std::chrono::hours(1)};
  SeveralKeys keys;
  keys.Note("a", start);
  EXPECT_FALSE(keys.lately(start));
  keys.Note("b", start + std::chrono::hours(1));
  EXPECT_FALSE(keys.lately(start + std::chrono::hours(1))) << "the other is long gone";
  keys.Note("a", start + std::chrono::hours(1) + std::chrono::seconds(59));
  EXPECT_TRUE(keys.lately(start + std::chrono::hours(1) + std::chrono::seconds(59)));
  EXPECT_FALSE(keys.lately(keys.until()));
}

TEST_F(WorkerPoolTest, WhoeverKeepsThreadsBusyLeavesOneToTheNext) {
  WorkerPool pool(5, 100);
  std::promise<void> released, small_begun;
  const std::shared_future<void> released_future = released.get_future().share();
  std::atomic<int> large_begun = 0;
  const auto add_large = [&] {
    return pool.Submit(
        [&] {
          ++large_begun;
          released_future.wait();
        },
        "large");
  };
  EXPECT_TRUE(pool.RunHere([] {}, "small")) << "so that the pool knows of both";
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(add_large());
  while (large_begun < 4) std::this_thread::yield();
  EXPECT_EQ(pool.queued("large"), 0U);
  EXPECT_FALSE(pool.RunHere([] {}, "large"));
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(add_large());
  EXPECT_EQ(pool.queued("large"), 6U);
  EXPECT_EQ(pool.queued("small"), 0U);
  size_t ahead = 0;
  ASSERT_TRUE(pool.Submit([] {}, "large", &ahead));
  EXPECT_EQ(ahead, 6U);
  EXPECT_TRUE(pool.RunHere([] {}, "small")) << "though others wait";
  ASSERT_TRUE(pool.Submit([&] { small_begun.set_value(); }, "small"));
  EXPECT_EQ(small_begun.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_EQ(large_begun, 4);
  released.set_value();
  pool.Stop();
  EXPECT_EQ(large_begun, 10);
}

TEST_F(WorkerPoolTest, WhoeverIsAloneHasAllThreads) {
  WorkerPool pool(5, 100);
  std::promise<void> released;
  const std::shared_future<void> released_future = released.get_future().share();
  std::atomic<int> begun = 0;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(pool.Submit(
        [&] {
          ++begun;
          released_future.wait();
        },
        "only"));
  }
  while (begun < 5) std::this_thread::yield();
  released.set_value();
  pool.Stop();
}

TEST_F(WorkerPoolTest, WithoutKeysAllPlacesAreTaken) {
  Hold(3);
  for (const bool taken : {true, true, true, false}) EXPECT_EQ(Add("", "x"), taken);
  EXPECT_EQ(Release().size(), 3u);
}

TEST_F(WorkerPoolTest, AQueueWithoutABoundWorks) {
  Hold(SIZE_MAX);
  for (const char* key : {"", "key", "key"}) EXPECT_TRUE(Add(key, "x"));
  EXPECT_EQ(Release().size(), 3u);
}

TEST_F(WorkerPoolTest, NoQueueStillWorks) {
  Hold(0);
  EXPECT_FALSE(Add("", "x"));
  Release();
}

TEST_F(WorkerPoolTest, WhatRunsHereTakesTheFreeWorkersPlace) {
  WorkerPool pool(1, 1);
  bool ran_here = false, ran_there = false;
  const auto here = std::this_thread::get_id();
  EXPECT_TRUE(pool.RunHere([&] {
    ran_here = std::this_thread::get_id() == here;
    EXPECT_TRUE(pool.Submit([&] { ran_there = std::this_thread::get_id() != here; }));
    EXPECT_FALSE(pool.Submit([] {})) << "one place at work, one that waits";
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    EXPECT_EQ(pool.queued(), 1u) << "the worker's place is taken";
    EXPECT_FALSE(pool.RunHere([] {})) << "another waits for its turn";
  }));
  pool.Stop();
  EXPECT_TRUE(ran_here);
  EXPECT_TRUE(ran_there) << "as soon as the place was free";
  EXPECT_FALSE(pool.RunHere([] {})) << "stopped";
}

TEST_F(WorkerPoolTest, TheKeyOfWhatRunsHereMayEndWithIt) {
  WorkerPool pool(1, 4);
  std::string key = "key";
  EXPECT_TRUE(pool.RunHere([&] { key = "what comes to lie there"; }, key));
  EXPECT_TRUE(pool.RunHere([&] {
    int places = 0;
    while (pool.Submit([] {}, "key")) ++places;
    EXPECT_EQ(places, 4) << "the place of the first is free again";
  }));
}

TEST_F(WorkerPoolTest, NothingRunsHereWhileAllWorkersAreBusy) {
  Hold(3);
  EXPECT_FALSE(pool_->RunHere([] {}));
  Release();
}

// Of two threads one works, and something runs here in the other's place, which is told to stop meanwhile.
TEST_F(WorkerPoolTest, StopEndsAThreadThatHadNoPlace) {
  WorkerPool pool(2, 4);
  std::atomic<bool> begun = false, released = false;
  ASSERT_TRUE(pool.Submit([&] {
    begun = true;
    while (!released) std::this_thread::yield();
  }));
  while (!begun) std::this_thread::yield();
  std::thread stopper;
  EXPECT_TRUE(pool.RunHere([&] {
    stopper = std::thread([&] { pool.Stop(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // for the other to hear of it, and to wait again
  }));
  released = true;
  stopper.join();
}

}  // namespace
}  // namespace retro
