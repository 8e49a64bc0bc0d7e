// A generator whose model fails every step says so: nobody is to be sent there until a step succeeds again.
#include "generator_service/serve/model_health.h"

#include <atomic>
#include <stdexcept>
#include <thread>

#include "tests/generator_fixture.h"
#include "tests/torch_memory.h"

namespace retro {
namespace {

using State = grpc::health::v1::HealthCheckResponse;

// May be told to fail as a device does that is beyond repair: not for want of memory.
class BreakingAllocator : public TorchMemory {
 public:
  void SetBroken(bool broken) { broken_ = broken; }

 protected:
  void BeforeAllocation() override {
    if (broken_) throw std::runtime_error("the device is broken");
  }

 private:
  std::atomic<bool> broken_ = false;
};

class ModelHealthTest : public GeneratorServiceTest {
 protected:
  // A stream's end is told a moment before health is.
  void AwaitHealth(State::ServingStatus state) {
    for (const char* name : {"", kGeneratorHealth}) {
      while (Health(name) != state) std::this_thread::yield();
    }
  }
  void Fail() { ASSERT_EQ(Generate(Request("a prompt", 3)).status.code(), absl::StatusCode::kInternal); }
  void Succeed() { ASSERT_TRUE(Generate(Request("a prompt", 3)).status.ok()); }
};

TEST_F(ModelHealthTest, FollowsTheStepsOfWhichNothingCame) {
  BreakingAllocator memory;
  Serve();
  Succeed();
  for (int again = 0; again < 2; ++again) {
    memory.SetBroken(true);
    for (int step = 0; step < ModelHealth::kFailedStepsMax - 1; ++step) Fail();
    EXPECT_EQ(Health(kGeneratorHealth), State::SERVING);
    Fail();
    AwaitHealth(State::NOT_SERVING);
    Fail();
    EXPECT_EQ(Health(kGeneratorHealth), State::NOT_SERVING);
    memory.SetBroken(false);
    Succeed();
    AwaitHealth(State::SERVING);
  }
  // Not in a row.
  for (int step = 0; step < 2 * ModelHealth::kFailedStepsMax; ++step) {
    memory.SetBroken(true);
    Fail();
    memory.SetBroken(false);
    Succeed();
  }
  EXPECT_EQ(Health(kGeneratorHealth), State::SERVING);
  generator_.reset();  // before the memory that it uses
}

}  // namespace
}  // namespace retro
