#include "common/document/item_error.h"

#include <gtest/gtest.h>

#include <chrono>

#include "common/base/error.h"
#include "common/base/strings.h"

namespace retro {
namespace {

absl::Status ThereAndBack(const absl::Status& status) { return FromItemError(ToItemError(status)); }

TEST(ItemErrorTest, ThereAndBackKeepsEverything) {
  const absl::Status field = ThereAndBack(FieldError("write.document.text", "is empty"));
  EXPECT_EQ(field.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MessageOf(field), "write.document.text: is empty");
  EXPECT_EQ(ReasonOf(field), Reason::kInvalidField);
  EXPECT_EQ(FieldOf(field), "write.document.text");
  EXPECT_EQ(RetryAfterOf(field), std::nullopt);
  const absl::Status full = ThereAndBack(QueueFullError("the queue", std::chrono::milliseconds(1250)));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), Reason::kQueueFull);
  EXPECT_EQ(FieldOf(full), std::nullopt);
  EXPECT_EQ(RetryAfterOf(full), std::chrono::milliseconds(1250));
}

TEST(ItemErrorTest, AFullDiskHasNoDelay) {
  const absl::Status disk = Error(absl::StatusCode::kResourceExhausted, Reason::kReadOnly, "the disk is full");
  EXPECT_FALSE(ToItemError(disk).has_retry_delay());
}

}  // namespace
}  // namespace retro
