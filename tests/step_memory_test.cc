// Decoding takes no memory of the vocabulary's size a token once it has warmed up: everything that large is made once.
// What torch computes in is its own allocator's, which does not come by here.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "generator_service/checkpoints/random_init.h"
#include "generator_service/engine/model_runner.h"
#include "generator_service/engine/scheduler.h"
#include "tests/fake_neighbours.h"

namespace {

constexpr size_t kVocabulary = 50'000;
std::atomic<int64_t> large_allocations{0};

void* Allocate(size_t bytes) {
  if (bytes >= kVocabulary) ++large_allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// Not inlined: where GCC inlines some of them, it sees free() without malloc() or the other way round, and warns.
[[gnu::noinline]] void* operator new(size_t bytes) { return Allocate(bytes); }
[[gnu::noinline]] void* operator new[](size_t bytes) { return Allocate(bytes); }
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t& /*tag*/) noexcept { return Allocate(bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t /*bytes*/) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, size_t /*bytes*/) noexcept { std::free(memory); }

namespace retro {
namespace {

TEST(StepMemoryTest, NothingOfTheVocabularysSizeIsTakenForAToken) {
  const ByteTokenizer tokenizer;
  ModelConfig config = MakeTinyModel()->config();
  config.vocabulary = kVocabulary;
  const auto model = *RetroModel::Create(config, *RandomWeights(config, 1), "cpu");
  ModelRunner runner(*model);
  Scheduler scheduler(TinyFacts(*model, tokenizer), {});
  GenerationRequest request;
  request.prompt = Ids("plain");
  request.max_tokens = 60;
  request.sampling.top_logprobs = 3;
  request.sampling.repetition_penalty = 1.1F;
  request.sampling.logit_bias = {{tokenizer.eos_id(), -100.0F}};
  const auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(scheduler.Add(1, request, sink, Clock::now()).ok());
  int64_t warm = 0;
  for (int step = 0; step < 40; ++step) {
    if (step == 5) warm = large_allocations;
    scheduler.Settle(Clock::now());
    const std::vector<StepItem> items = scheduler.Plan();
    scheduler.Apply(runner.Step(items), Clock::now());
  }
  EXPECT_GT(warm, 0);  // it does count
  EXPECT_EQ(large_allocations, warm);
  EXPECT_EQ(sink->Generated().size(), 40U);
}

}  // namespace
}  // namespace retro
