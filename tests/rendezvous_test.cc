// How processes that train together meet, and hear of each other's end.
#include "trainer/processes/rendezvous.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <future>
#include <string>
#include <thread>
#include <utility>

#include "tests/free_port.h"
#include "trainer/processes/process_group.h"

namespace retro {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr RendezvousTimes kTimes = {
    .meeting = milliseconds(20'000), .beat = milliseconds(20), .silence = milliseconds(400)};

// Two of them in one process.
class RendezvousTest : public testing::Test {
 protected:
  explicit RendezvousTest(const RendezvousTimes& times = kTimes) : times_(times) {}
  void SetUp() override {
    const uint16_t port = FreePort();
    auto second = std::async(std::launch::async, [&] { return Meet(1, port); });
    ranks_[0] = Meet(0, port);
    ranks_[1] = second.get();
    ASSERT_NE(ranks_[0], nullptr);
    ASSERT_NE(ranks_[1], nullptr);
  }

  std::unique_ptr<Rendezvous> Meet(int rank, uint16_t port) {
    const Launch launch = {.rank = rank, .size = 2, .address = "127.0.0.1", .port = port, .key_prefix = "test/"};
    auto met = Rendezvous::Meet(launch, times_, "text of " + std::to_string(rank),
                                [this, rank](const std::string& reason) { lost_[rank].set_value(reason); });
    EXPECT_TRUE(met.ok()) << met.status();
    return met.ok() ? *std::move(met) : nullptr;
  }

  // What a rank has heard of the other's end; empty if that takes longer than it ever should.
  std::string Lost(int rank) {
    std::future<std::string> reason = lost_[rank].get_future();
    return reason.wait_for(10 * times_.silence) == std::future_status::ready ? reason.get() : "";
  }

  const RendezvousTimes times_;
  std::promise<std::string> lost_[2];
  std::unique_ptr<Rendezvous> ranks_[2];
};

TEST_F(RendezvousTest, AllHearTheFirst) {
  EXPECT_EQ(ranks_[0]->text_of_first(), "text of 0");
  EXPECT_EQ(ranks_[1]->text_of_first(), "text of 0");
}

TEST_F(RendezvousTest, WhoIsDoneIsNotMissed) {
  ranks_[1]->Finish();
  ranks_[1].reset();
  std::future<std::string> lost = lost_[0].get_future();
  EXPECT_EQ(lost.wait_for(3 * times_.silence), std::future_status::timeout);
  ranks_[0]->Finish();
}

TEST_F(RendezvousTest, AFailureIsHeardWithItsReason) {
  ranks_[1]->Fail("rank 1 of 2: the disk is full");
  EXPECT_EQ(Lost(0), "rank 1 of 2: the disk is full");
}

// What a rank says before it is gone stands for a few beats: enough for one that a busy machine keeps waiting.
class SlowRendezvousTest : public RendezvousTest {
 protected:
  SlowRendezvousTest()
      : RendezvousTest({.meeting = kTimes.meeting, .beat = 10 * kTimes.beat, .silence = 10 * kTimes.silence}) {}
};

TEST_F(SlowRendezvousTest, TheFirstFailsAndIsHeardThoughItKeepsTheStore) {
  ranks_[0]->Fail("rank 0 of 2: the disk is full");
  ranks_[0].reset();
  EXPECT_EQ(Lost(1), "rank 0 of 2: the disk is full");
}

TEST_F(RendezvousTest, AProcessThatIsGoneIsMissed) {
  ranks_[1].reset();
  EXPECT_EQ(Lost(0), "rank 1 gives no sign of life");
}

TEST_F(RendezvousTest, SoIsTheOneThatKeepsTheStore) {
  ranks_[0].reset();
  EXPECT_THAT(Lost(1), HasSubstr("rank 0 at 127.0.0.1:"));
}

class LaunchTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const char* name :
         {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "OMPI_COMM_WORLD_SIZE"}) {
      unsetenv(name);
    }
  }
};

TEST_F(LaunchTest, AloneUnlessALauncherSaysOtherwise) {
  const auto place = OpenProcessPlace("cpu");
  ASSERT_TRUE(place.ok()) << place.status();
  EXPECT_EQ(place->group, nullptr);
  EXPECT_EQ(place->device, "cpu");
}

TEST_F(LaunchTest, TorchrunsVariablesAreRead) {
  for (const auto& [name, value] : {std::pair("RANK", "3"), std::pair("WORLD_SIZE", "8"), std::pair("LOCAL_RANK", "1"),
                                    std::pair("MASTER_ADDR", "gpu-a"), std::pair("MASTER_PORT", "29500")}) {
    setenv(name, value, 1);
  }
  const auto launch = LaunchOfTorchrun();
  ASSERT_TRUE(launch.ok()) << launch.status();
  ASSERT_TRUE(launch->has_value());
  EXPECT_EQ((*launch)->rank, 3);
  EXPECT_EQ((*launch)->size, 8);
  EXPECT_EQ((*launch)->local_rank, 1);
  EXPECT_EQ((*launch)->address, "gpu-a");
  EXPECT_EQ((*launch)->port, 29500);
  setenv("RANK", "8", 1);
  EXPECT_THAT(std::string(LaunchOfTorchrun().status().message()), HasSubstr("RANK is \"8\", not a number of 0 to 7"));
  unsetenv("RANK");
  EXPECT_FALSE(LaunchOfTorchrun().ok());
}

TEST_F(LaunchTest, ALauncherThatDoesNotFitTheDeviceIsRefused) {
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  EXPECT_THAT(std::string(OpenProcessPlace("cuda").status().message()), HasSubstr("start with torchrun"));
  unsetenv("OMPI_COMM_WORLD_SIZE");
  for (const auto& [name, value] : {std::pair("RANK", "0"), std::pair("WORLD_SIZE", "2"), std::pair("LOCAL_RANK", "0"),
                                    std::pair("MASTER_ADDR", "127.0.0.1"), std::pair("MASTER_PORT", "29500")}) {
    setenv(name, value, 1);
  }
  EXPECT_THAT(std::string(OpenProcessPlace("cpu").status().message()), HasSubstr("on the CPU use mpirun"));
}

}  // namespace
}  // namespace retro
