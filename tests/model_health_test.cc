// A generator whose model fails every step, or never ends one, says so: nobody is to be sent there until a step
// succeeds again.
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

// May be told to hang as a device does.
class HangingAllocator : public TorchMemory {
 public:
  void SetHanging(bool hanging) {
    MutexLock lock(mutex_);
    hanging_ = hanging;
    changed_.NotifyAll();
  }

 protected:
  void BeforeAllocation() override {
    MutexLock lock(mutex_);
    while (hanging_) changed_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool hanging_ ABSL_GUARDED_BY(mutex_) = false;
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

TEST_F(ModelHealthTest, FollowsAStepThatDoesNotEnd) {
  HangingAllocator memory;
  GeneratorOptions options;
  options.step_max = std::chrono::milliseconds(1000);
  Serve(retriever_.address(), {}, std::chrono::milliseconds(3000), options);
  Succeed();
  std::this_thread::sleep_for(2 * options.step_max);  // nothing to compute is no step that hangs
  EXPECT_EQ(Health(kGeneratorHealth), State::SERVING);
  for (int again = 0; again < 2; ++again) {
    memory.SetHanging(true);
    std::thread caller([this] { Succeed(); });
    AwaitHealth(State::NOT_SERVING);
    while (Health(kRetrievalHealth) != State::SERVING) std::this_thread::yield();  // its probes have little time
    memory.SetHanging(false);
    caller.join();
    AwaitHealth(State::SERVING);
  }
  generator_.reset();  // before the memory that it uses
}

TEST(ModelHealth, TellsOnceOfAStepThatHangs) {
  ModelHealth health{std::chrono::milliseconds(1)};
  std::vector<bool> told;
  health.Watch([&told](bool well) { told.push_back(well); });
  const auto look_twice = [&health] {
    for (int i = 0; i < 2; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      health.Look();
    }
  };
  look_twice();
  EXPECT_EQ(told, std::vector<bool>());
  health.OnStepBegin();
  look_twice();
  EXPECT_EQ(told, std::vector<bool>({false}));
  health.OnStep({.sessions = 1});
  look_twice();
  EXPECT_EQ(told, std::vector<bool>({false, true}));
}

}  // namespace
}  // namespace retro
