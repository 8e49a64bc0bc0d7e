#include "common/rpc/message.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "retro/generator/v1/generator.pb.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {
namespace {

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  std::vector<grpc::Slice> slices;  // as they come from a connection
  for (size_t i = 0; i < bytes.size(); i += 8191) slices.emplace_back(bytes.substr(i, 8191));
  return {slices.data(), slices.size()};
}

std::string Repeated(const std::string& bytes, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += bytes;
  return all;
}

constexpr size_t kTimes = 100'000;

TEST(MessageTest, WhatParsingTakesIsKnownBefore) {
  retriever::v1::SearchRequest search;
  retriever::v1::UpsertDocumentsRequest upsert;
  generator::v1::GenerateRequest generate;
  std::string tokens(kTimes, '\x01');
  tokens = std::string("\x12\xa4\x8d\x06\x0a\xa0\x8d\x06", 8) + tokens;  // prompt.tokens, its ids, packed
  struct Case {
    const char* what;
    const google::protobuf::Message& message;
    std::string bytes;
  };
  for (const Case& one :
       {Case{"empty queries", search, Repeated(std::string("\x12\x00", 2), kTimes)},
        Case{"empty writes", upsert, Repeated(std::string("\x12\x00", 2), kTimes)},
        Case{"writes of an empty document", upsert, Repeated(std::string("\x12\x02\x0a\x00", 4), kTimes)},
        Case{"unknown groups", search, Repeated("\x7b\x7c", kTimes)},
        Case{"unknown numbers", search, Repeated(std::string("\xf8\x07\x00", 3), kTimes)},
        Case{"unknown texts", search, Repeated(std::string("\xfa\x07\x00", 3), kTimes)},
        Case{"token ids", generate, tokens}}) {
    const grpc::ByteBuffer buffer = ToBuffer(one.bytes);
    const std::unique_ptr<google::protobuf::Message> message(one.message.New());
    const auto known = ParsedBytes(buffer, *message);
    ASSERT_TRUE(known.has_value()) << one.what;
    ASSERT_TRUE(ParseMessage(buffer, *message)) << one.what;
    const size_t taken = message->SpaceUsedLong();
    EXPECT_GT(taken, 3 * one.bytes.size()) << one.what << ": not what it is about";
    EXPECT_GE(*known + one.bytes.size(), taken) << one.what;
    EXPECT_LE(*known, 4 * taken) << one.what;
  }
}

// Alternating, so that each is of another type than the one before.
TEST(MessageTest, WhatIsTooMuchIsNotLookedAtFurther) {
  const retriever::v1::SearchRequest search;
  const std::string bytes = Repeated(std::string("\x22\x00\x52\x00", 4), 2'000'000);
  const auto known = ParsedBytes(ToBuffer(bytes), search);
  ASSERT_TRUE(known.has_value());
  EXPECT_GT(*known, kParsedBytesMax);
  EXPECT_LT(*known, kParsedBytesMax + 4096);
}

TEST(MessageTest, WhatIsHonestIsNotHeldToBeMuch) {
  retriever::v1::UpsertDocumentsRequest upsert;
  for (int i = 0; i < 16; ++i) {
    auto& document = *upsert.add_writes()->mutable_document();
    document.set_id("an id " + std::to_string(i));
    document.set_text(std::string(16384, 'x'));
    (*document.mutable_metadata())["language"].add_values()->set_string_value("en");
  }
  const std::string bytes = upsert.SerializeAsString();
  const auto known = ParsedBytes(ToBuffer(bytes), upsert);
  ASSERT_TRUE(known.has_value());
  EXPECT_LT(*known, bytes.size() / 4);
}

TEST(MessageTest, WhatIsNoMessageIsNotParsed) {
  retriever::v1::SearchRequest search;
  for (const std::string& bytes :
       {std::string("\x12"), std::string("\x12\x05\x01", 3), std::string("\x7b"), std::string("\x7c"),
        std::string("\x07"), std::string("\0", 1), std::string("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11),
        Repeated("\x7b", 200)}) {
    bool held = false;
    const absl::Status status = ParseRequest(ToBuffer(bytes), search, [&held](size_t) {
      held = true;
      return absl::OkStatus();
    });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(held) << "it was scanned to its end";
  }
}

TEST(MessageTest, AMessageIsRefusedBeforeItIsParsed) {
  retriever::v1::SearchRequest search;
  const grpc::ByteBuffer many = ToBuffer(Repeated(std::string("\x12\x00", 2), 1'000'000));
  const absl::Status full = ParseRequest(many, search, [](size_t bytes) {
    EXPECT_GT(bytes, 50'000'000U);
    return QueueFullError("the memory", std::chrono::milliseconds(1));
  });
  EXPECT_EQ(ReasonOf(full), Reason::kQueueFull);
  EXPECT_EQ(search.queries_size(), 0);
  const absl::Status never =
      ParseRequest(ToBuffer(Repeated(std::string("\x12\x00", 2), 4'000'000)), search, [](size_t) {
        ADD_FAILURE() << "there is no budget for it";
        return absl::OkStatus();
      });
  EXPECT_EQ(never.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(search.queries_size(), 0);
}

}  // namespace
}  // namespace retro
