#include "common/document/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace retro {
namespace {

TEST(HalfTest, RoundsAndTellsOverflow) {
  const std::vector<float> values = {0.0F, -1.5F, 0.1F, 65504.0F};
  const std::string halves = ToHalf(values);
  EXPECT_TRUE(AllFinite(halves));
  std::vector<float> back(values.size());
  FromHalf(halves, back);
  EXPECT_EQ(back[1], -1.5F);
  EXPECT_NEAR(back[2], 0.1F, 1e-4F);
  EXPECT_EQ(back[3], 65504.0F);
  EXPECT_FALSE(AllFinite(ToHalf(std::vector<float>{1.0F, 70000.0F})));
  EXPECT_FALSE(AllFinite(ToHalf(std::vector<float>{std::nanf("")})));
}

}  // namespace
}  // namespace retro
