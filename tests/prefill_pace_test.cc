#include "generator_service/engine/prefill_pace.h"

#include <gtest/gtest.h>

namespace retro {
namespace {

using std::chrono::nanoseconds;

// A machine whose steps take a fixed time, and some more for each token of a prompt.
struct Machine {
  int64_t step_us = 0;
  int64_t token_us = 0;
  nanoseconds Step(int64_t tokens) const { return std::chrono::microseconds(step_us + token_us * tokens); }
};

TEST(PrefillPaceTest, StepsStayWithinTheSlowdownAndPrefillGoesOn) {
  for (const Machine machine : {Machine{30'000, 7'000}, Machine{30'000, 60'000}, Machine{20'000, 100}}) {
    PrefillPace pace(1, 32);
    int64_t prefilled = 0;
    int64_t beside = 0;
    for (int step = 0; step < 300; ++step) {
      const int64_t tokens = pace.Tokens();
      ASSERT_LE(tokens, 32);
      if (step > 5 && tokens > 1) {  // of one token more cannot be left out
        EXPECT_LE(machine.Step(tokens).count(), PrefillPace::kSlowdown * 1.01 * machine.Step(0).count()) << step;
      }
      prefilled += tokens;
      if (tokens > 0) ++beside;
      pace.Note(tokens, machine.Step(tokens));
    }
    EXPECT_GT(beside, 285);
    EXPECT_GE(prefilled, machine.token_us == 7'000 ? 285 * 6
                         : machine.token_us == 100 ? 285 * 31
                                                   : 285)
        << machine.token_us;
  }
}

TEST(PrefillPaceTest, ItFollowsAMachineThatChanges) {
  PrefillPace pace(1, 64);
  Machine machine{10'000, 5'000};
  for (int step = 0; step < 200; ++step) {
    const int64_t tokens = pace.Tokens();
    pace.Note(tokens, machine.Step(tokens));
  }
  EXPECT_GE(pace.Tokens(), 2);
  EXPECT_LE(pace.Tokens(), 3);
  machine = {50'000, 5'000};  // more sessions decode
  for (int step = 0; step < 1500; ++step) {
    const int64_t tokens = pace.Tokens();
    pace.Note(tokens, machine.Step(tokens));
  }
  while (pace.Tokens() == 0) pace.Note(0, machine.Step(0));
  EXPECT_GE(pace.Tokens(), 10);
  EXPECT_LE(pace.Tokens(), 17);
}

TEST(PrefillPaceTest, AStepThatWasHeldUpDoesNotCountForTheNextOnes) {
  PrefillPace pace(1, 32);
  const Machine machine{30'000, 5'000};
  for (int step = 0; step < 100 || pace.Tokens() > 0; ++step) {
    const int64_t tokens = pace.Tokens();
    pace.Note(tokens, machine.Step(tokens));
  }
  pace.Note(0, 20 * machine.Step(0));
  for (int step = 0; step < 300; ++step) {
    const int64_t tokens = pace.Tokens();
    EXPECT_LE(machine.Step(tokens).count(), 2 * PrefillPace::kSlowdown * machine.Step(0).count()) << step;
    if (step > 200) {
      EXPECT_LE(machine.Step(tokens).count(), 1.1 * PrefillPace::kSlowdown * machine.Step(0).count()) << step;
    }
    pace.Note(tokens, machine.Step(tokens));
  }
}

TEST(PrefillPaceTest, StepsThatTakeNoTimeAreNotLimited) {
  PrefillPace pace(1, 32);
  EXPECT_EQ(pace.Tokens(), 0);
  pace.Note(0, nanoseconds(0));
  EXPECT_EQ(pace.Tokens(), 8);
  pace.Note(8, nanoseconds(0));
  EXPECT_EQ(pace.Tokens(), 32);
}

TEST(PrefillPaceTest, NoFewerThanTheLeastHoweverSlowTheyAre) {
  PrefillPace pace(16, 32);
  const Machine machine{3'000, 5'000};
  pace.Note(0, machine.Step(0));
  EXPECT_EQ(pace.Tokens(), 16);
  pace.Note(16, machine.Step(16));
  EXPECT_EQ(pace.Tokens(), 16);
  EXPECT_EQ(pace.TokensMeanwhile(), 16);
}

TEST(PrefillPaceTest, WithNothingToChooseItNeverPauses) {
  PrefillPace pace(16, 16);
  const Machine machine{3'000, 5'000};
  for (int step = 0; step < 100; ++step) {
    ASSERT_EQ(pace.Tokens(), 16) << step;
    pace.Note(16, machine.Step(16));
  }
}

}  // namespace
}  // namespace retro
