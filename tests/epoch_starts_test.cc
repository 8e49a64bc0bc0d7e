#include "retriever_service/store/epoch_starts.h"

#include <gtest/gtest.h>

#include "retriever_service/store/layout.h"

namespace retro {
namespace {

TEST(EpochStartsTest, AChangeIsRuledOutByTheNextEpochThatBeganWithoutIt) {
  EpochStarts starts;
  EXPECT_FALSE(starts.RuleOut(MakePosition(1, 5))) << "nothing is known";
  starts.Add(MakePosition(2, 1));
  starts.Add(MakePosition(3, 101));  // not 500: it came back older
  starts.Add(MakePosition(7, 301));
  EXPECT_FALSE(starts.RuleOut(MakePosition(2, 100)));
  EXPECT_TRUE(starts.RuleOut(MakePosition(2, 101)));
  EXPECT_TRUE(starts.RuleOut(MakePosition(2, 500)));
  EXPECT_FALSE(starts.RuleOut(MakePosition(3, 101)));
  EXPECT_FALSE(starts.RuleOut(MakePosition(3, 300)));
  EXPECT_TRUE(starts.RuleOut(MakePosition(5, 301))) << "an epoch that it never saw";
  EXPECT_FALSE(starts.RuleOut(MakePosition(7, 1'000'000))) << "it may come";
  EXPECT_FALSE(starts.RuleOut(MakePosition(8, 1))) << "so may an epoch";
  EXPECT_FALSE(starts.RuleOut({})) << "no token";
}

TEST(EpochStartsTest, TheOldestAreForgotten) {
  EpochStarts starts;
  for (uint64_t epoch = 2; epoch < EpochStarts::kMax + 3; ++epoch) starts.Add(MakePosition(epoch, 10 * epoch));
  EXPECT_EQ(starts.Encode().size(), 16 * EpochStarts::kMax);
  EXPECT_FALSE(starts.RuleOut(MakePosition(1, 25))) << "where epoch 2 began is forgotten";
  EXPECT_TRUE(starts.RuleOut(MakePosition(1, 30)));
}

TEST(EpochStartsTest, BytesAreReadAgain) {
  EpochStarts starts;
  starts.Add(MakePosition(2, 1));
  starts.Add(MakePosition(3, 101));
  const std::string bytes = starts.Encode();
  ASSERT_TRUE(EpochStarts::Decode(bytes).has_value());
  EXPECT_EQ(EpochStarts::Decode(bytes)->Encode(), bytes);
  EXPECT_TRUE(EpochStarts::Decode("").has_value()) << "a store of before";
  EXPECT_FALSE(EpochStarts::Decode(bytes.substr(1)).has_value()) << "cut";
  EXPECT_FALSE(EpochStarts::Decode(bytes.substr(16) + bytes).has_value()) << "not in order";
  std::string many;
  for (uint64_t epoch = 2; epoch < EpochStarts::kMax + 3; ++epoch) many += ChangeKey(MakePosition(epoch, epoch));
  EXPECT_FALSE(EpochStarts::Decode(many).has_value()) << "too many";
}

}  // namespace
}  // namespace retro
