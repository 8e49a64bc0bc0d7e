// What is damage, after which nothing is written, and what passes.
#include "retriever_service/store/rocks_errors.h"

#include <gtest/gtest.h>

#include <string>

#include "common/base/error.h"

namespace retro {
namespace {

using rocksdb::Status;

TEST(RocksErrorsTest, FilesThatAreNotAsTheyWereWrittenAreDamage) {
  for (const Status& status : {Status::Corruption("block checksum mismatch"), Status::PathNotFound("While open a file"),
                               Status::IOError("While pread offset 4096 len 8192: /store/000012.sst", "5")}) {
    EXPECT_TRUE(IsDamage(status)) << status.ToString();
    EXPECT_EQ(ReasonOf(FromRocks(status, "/store")), Reason::kStoreDamaged) << status.ToString();
  }
}

TEST(RocksErrorsTest, AFullDiskIsNot) {
  const Status full = Status::NoSpace("While appending to file: /store/000012.log", "full");
  EXPECT_FALSE(IsDamage(full));
  EXPECT_TRUE(DidNothing(full));
  EXPECT_EQ(ReasonOf(FromRocks(full, "/store")), Reason::kReadOnly);
  EXPECT_FALSE(DidNothing(Status::NoSpace("While fsync: /store/000012.log", "full"))) << "the record may be there";
  EXPECT_FALSE(IsDamage(Status::IOError("While fdatasync: /store/000012.log")));
  EXPECT_TRUE(FromRocks(Status::OK(), "/store").ok());
}

}  // namespace
}  // namespace retro
