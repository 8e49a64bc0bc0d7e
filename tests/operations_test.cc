// Long work of operators: what waits for what, and how it ends with the process.
#include "retriever_service/shard/operations.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <optional>
#include <string>
#include <thread>

#include "common/base/error.h"

namespace retro {
namespace {

using Line = Operations::Line;

class OperationsTest : public testing::Test {
 protected:
  // Ends when it is cancelled, and fails then.
  std::string BeginForLong(Line line) {
    const auto begun = operations_->Begin(
        line,
        [this](const Operations::Progress& progress) {
          begun_.set_value();
          cancelled_.get_future().wait();
          ended_with_ = progress(1);
          return ended_with_;
        },
        [this] { cancelled_.set_value(); });
    EXPECT_TRUE(begun.ok()) << begun.status();
    begun_.get_future().wait();
    return begun->operation_id();
  }
  admin::v1::OperationState StateOf(const std::string& id) { return operations_->Get(id)->state(); }

  std::promise<void> begun_, cancelled_;
  absl::Status ended_with_;
  std::optional<Operations> operations_{std::in_place};
};

TEST_F(OperationsTest, ASnapshotWaitsForNoCompaction) {
  const std::string compaction = BeginForLong(Line::kMaintenance);
  std::promise<void> made;
  const auto snapshot = operations_->Begin(Line::kSnapshots, [&](const auto&) {
    made.set_value();
    return absl::OkStatus();
  });
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  made.get_future().wait();
  while (StateOf(snapshot->operation_id()) == admin::v1::OPERATION_STATE_RUNNING) std::this_thread::yield();
  EXPECT_EQ(StateOf(snapshot->operation_id()), admin::v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(StateOf(compaction), admin::v1::OPERATION_STATE_RUNNING);
}

TEST_F(OperationsTest, WhatRunsIsCancelledAndWhatWaitsIsNotBegunWhenTheProcessStops) {
  BeginForLong(Line::kMaintenance);
  std::atomic<bool> ran = false;
  const auto waits = operations_->Begin(Line::kMaintenance, [&](const auto&) {
    ran = true;
    return absl::OkStatus();
  });
  ASSERT_TRUE(waits.ok()) << waits.status();
  operations_.reset();
  EXPECT_EQ(ReasonOf(ended_with_), Reason::kShuttingDown) << ended_with_;
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace retro
