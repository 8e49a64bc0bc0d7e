// A generator whose model fails every step says so: nobody is to be sent there until a step succeeds again.
#include "generator_service/serve/model_health.h"

#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "tests/generator_fixture.h"

namespace retro {
namespace {

using State = grpc::health::v1::HealthCheckResponse;

// Torch's memory, which may be told to fail as a device does that is beyond repair: not for want of memory.
class BreakingAllocator : public at::Allocator {
 public:
  BreakingAllocator() : real_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, kPriority); }
  ~BreakingAllocator() override { c10::SetCPUAllocator(real_, kPriority); }
  BreakingAllocator(const BreakingAllocator&) = delete;
  BreakingAllocator& operator=(const BreakingAllocator&) = delete;

  void SetBroken(bool broken) { broken_ = broken; }

  at::DataPtr allocate(size_t bytes) override {
    if (broken_) throw std::runtime_error("the device is broken");
    return real_->allocate(bytes);
  }
  at::DeleterFnPtr raw_deleter() const override { return real_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override { real_->copy_data(to, from, bytes); }

 private:
  static constexpr uint8_t kPriority = 255;
  at::Allocator* const real_;
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
