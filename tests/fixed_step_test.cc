// Decoding by steps of fixed shape gives what the decoder gives piece by piece, and takes no memory once it is warm. On
// CUDA (tests/gpu/run.sh) the steps of FixedDecoder are captured graphs.
#include "generator_service/model/fixed_step.h"

#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <vector>

#include "generator_service/engine/fixed_decoder.h"
#include "generator_service/model/sequence_state.h"
#include "tests/paper_reference.h"
#include "tests/scheduler_harness.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

// The CPU's memory as CUDA's allocator keeps it: what is given back serves again for the same size. Counts what the
// system had to give.
class KeepingAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    std::vector<void*>& kept = kept_[bytes];
    void* memory = nullptr;
    if (kept.empty()) {
      ++taken;
      memory = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
      size_of_[memory] = bytes;
    } else {
      memory = kept.back();
      kept.pop_back();
    }
    return {memory, memory, &Keep, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Keep; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  static KeepingAllocator& Instance() {
    static auto* const instance = new KeepingAllocator;  // outlives every tensor
    return *instance;
  }

  int64_t taken = 0;

 private:
  static constexpr size_t kAlignment = 64;

  static void Keep(void* memory) { Instance().kept_[Instance().size_of_.at(memory)].push_back(memory); }

  std::map<size_t, std::vector<void*>> kept_;
  std::map<void*, size_t> size_of_;
};

bool OnCuda() { return TestDevice() != "cpu"; }

// Allocations so far: on CUDA of any kind, for a graph that is launched makes none.
int64_t Taken() {
  if (!OnCuda()) return KeepingAllocator::Instance().taken;
  return c10::getDeviceAllocator(c10::kCUDA)->getDeviceStats(0).allocation[0].allocated;
}

at::Tensor OnDevice(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong).to(at::Device(TestDevice()));
}

// The next tokens of the sequences, of shapes with room for `blocks` blocks. Without gates.
FixedStepInput InputOf(const RetroModel& model, const std::vector<Sequence*>& sequences,
                       const std::vector<TokenId>& tokens, const std::vector<int64_t>& slots, int64_t blocks) {
  std::vector<int64_t> held, block, in_block, in_chunk, attending, table;
  const int64_t m = model.config().chunk_length;
  for (size_t i = 0; i < sequences.size(); ++i) {
    SequenceState& state = sequences[i]->state();
    EXPECT_TRUE(state.cache->Reserve(state.position + 1));
    const int64_t chunk = state.geometry.AttendedChunk(state.position);
    const int64_t running = state.geometry.CompleteChunks(state.position);
    held.push_back(state.position);
    block.push_back(state.cache->blocks()[state.position / m]);
    in_block.push_back(state.position % m);
    in_chunk.push_back(state.position - state.geometry.Begin(running));
    attending.push_back(chunk >= 0 ? state.geometry.Place(state.position, chunk) : 0);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    for (const Sequence* sequence : sequences) {
      const auto own = sequence->state().cache->blocks();
      table.push_back(own[i < static_cast<int64_t>(own.size()) ? i : 0]);
    }
  }
  const int64_t rows = static_cast<int64_t>(sequences.size());
  return {.token = OnDevice({tokens.begin(), tokens.end()}),
          .held = OnDevice(held),
          .block = OnDevice(block),
          .in_block = OnDevice(in_block),
          .slot = OnDevice(slots),
          .in_chunk = OnDevice(in_chunk),
          .attending = OnDevice(attending),
          .blocks = OnDevice(table).view({blocks, rows})};
}

// Logits of the sequences' next tokens by one step of fixed shape, which moves them on.
at::Tensor StepTogether(const RetroModel& model, DecodeSlots& slots, FixedStepInput input,
                        const std::vector<Sequence*>& sequences, const std::vector<int64_t>& slot_of,
                        const std::vector<CompletingRow>& completing) {
  const at::Tensor h = BeginFixedStep(model.weights(), model.config(), model.pool(), slots, input);
  const auto memories = EncodeForSlots(model.weights(), model.config(), slots, h, completing);
  for (size_t i = 0; i < completing.size(); ++i) completing[i].state->memory = memories[i];
  std::vector<double> gates;
  for (Sequence* sequence : sequences) {
    gates.push_back(sequence->state().memory == nullptr ? 0 : sequence->state().options.gate.value_or(1));
  }
  input.gate = at::tensor(gates, at::kFloat).to(at::Device(TestDevice()));
  for (size_t i = 0; i < sequences.size(); ++i) {
    SequenceState& state = sequences[i]->state();
    ++state.position;
    const int64_t in_chunk = state.position - state.geometry.Begin(state.geometry.CompleteChunks(state.position));
    if (!state.options.retrieval) continue;
    state.conditioning = in_chunk == 0 ? at::Tensor() : slots.ConditioningOf(slot_of[i], in_chunk);
  }
  return EndFixedStep(model.weights(), model.config(), model.pool(), slots, input, h);
}

class FixedStepTest : public testing::TestWithParam<std::string> {};

// Of the chunk that the sequence's next token completes, if it completes one.
std::span<const ChunkNeighbours> NextNeighbours(const PaperReference& reference, const Sequence& sequence) {
  const auto chunk = static_cast<size_t>(sequence.geometry().CompleteChunks(sequence.position()));
  const auto completed = static_cast<size_t>(sequence.options().retrieval ? sequence.ChunksCompletedBy(1) : 0);
  return std::span(reference.neighbours).subspan(chunk, completed);
}

// Logits of the next token, which moves the sequence on.
at::Tensor Next(const PaperReference& reference, Sequence& sequence) {
  const Piece piece{.sequence = &sequence,
                    .tokens = std::span(reference.tokens).subspan(sequence.position(), 1),
                    .neighbours = NextNeighbours(reference, sequence)};
  return reference.model->Forward({&piece, 1})->at(0);
}

TEST_P(FixedStepTest, GivesTheDecodersLogits) {
  const c10::InferenceMode inference;
  const PaperReference reference = LoadPaperReference(GetParam());
  const RetroModel& model = *reference.model;
  model.pool().Clear();
  ASSERT_TRUE(HasFixedStep(model.config()));
  DecodeSlots slots(model.config(), model.weights(), 3, 4, at::Device(TestDevice()));
  std::vector<std::unique_ptr<Sequence>> fixed, plain;
  for (const bool retrieval : {true, false, true}) {
    const SequenceOptions options{.offset = reference.offset, .retrieval = retrieval, .gate = fixed.size() + 1.0};
    fixed.push_back(*model.NewSequence(options));
    plain.push_back(*model.NewSequence(options));
  }
  // The last one is behind the others.
  const auto length = static_cast<int64_t>(reference.tokens.size());
  for (const auto& sequences : {&fixed, &plain}) {
    for (size_t i = 0; i < 2; ++i) Next(reference, *(*sequences)[i]);
  }
  const int64_t blocks = (length + model.config().chunk_length - 1) / model.config().chunk_length + 1;
  double worst = 0;
  int64_t rows = 0;
  int64_t completed = 0;
  while (plain[0]->position() < length) {
    std::vector<at::Tensor> wanted;
    std::vector<int64_t> together;  // slots
    std::vector<Sequence*> sequences;
    std::vector<TokenId> tokens;
    std::vector<CompletingRow> completing;
    for (size_t i = 0; i < fixed.size(); ++i) {
      const at::Tensor logits = Next(reference, *plain[i]);
      SequenceState& state = fixed[i]->state();
      const auto neighbours = NextNeighbours(reference, *fixed[i]);
      if (!IsDecodeRow(state) || (neighbours.empty() ? !slots.HasRoomFor(state) : !slots.HasRoomFor(neighbours[0]))) {
        Next(reference, *fixed[i]);
        continue;
      }
      const auto slot = static_cast<int64_t>(i);
      slots.BringConditioning(slot, state);
      if (neighbours.empty()) {
        slots.BringMemory(slot, state.memory);
      } else {
        completing.push_back({&state, static_cast<int64_t>(sequences.size()), slot, neighbours});
      }
      together.push_back(slot);
      sequences.push_back(fixed[i].get());
      tokens.push_back(reference.tokens[state.position]);
      wanted.push_back(logits);
    }
    if (sequences.empty()) continue;
    const at::Tensor logits = StepTogether(model, slots, InputOf(model, sequences, tokens, together, blocks), sequences,
                                           together, completing);
    worst = std::max(worst, (logits - at::cat(wanted)).abs().max().item<double>());
    rows += static_cast<int64_t>(sequences.size());
    completed += static_cast<int64_t>(completing.size());
  }
  std::cout << GetParam() << ", " << rows << " rows, of which " << completed << " complete chunks: max |diff| " << worst
            << "\n";
  EXPECT_GT(rows, length);
  EXPECT_GT(completed, 0);
  EXPECT_LT(worst, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Goldens, FixedStepTest, testing::ValuesIn(PaperReferenceNames()));

GenerationRequest RequestOf(std::string_view prompt, float temperature) {
  GenerationRequest request;
  request.prompt = Ids(prompt);
  request.max_tokens = 60;
  request.sampling.temperature = temperature;
  request.sampling.seed = prompt.size();
  request.sampling.repetition_penalty = temperature > 0 ? 1.2F : 1.0F;
  request.sampling.logit_bias = {{ByteTokenizer().eos_id(), -100.0F}};
  return request;
}

void Report(const absl::Status& why) { ADD_FAILURE() << why; }

TEST(FixedDecoderTest, EverySessionGetsTheTokensThatItGetsAlone) {
  const ByteTokenizer tokenizer;
  const auto model = MakeTinyModel();
  SchedulerHarness harness(*model, tokenizer, {}, *FixedDecoder::Create(*model, {.on_failure = Report}));
  std::vector<GenerationRequest> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const std::string_view prompt :
       {"one", "two sessions", "a third one that has a long prompt", "4", "five at once"}) {
    GenerationRequest& request = requests.emplace_back(RequestOf(prompt, requests.size() % 2 == 0 ? 0.0F : 0.8F));
    request.retrieval.enabled = requests.size() != 2;
    request.retrieval.timeout_ms = std::chrono::milliseconds(100'000);
    sinks.push_back(std::make_shared<RecordingSink>());
    ASSERT_TRUE(harness.Add(requests.size(), request, sinks.back()).ok());
  }
  for (int turn = 0; turn < 500; ++turn) {
    harness.Turn();
    while (!harness.lookups().empty()) harness.Answer(0, /*failures=*/false);
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(sinks[i]->Generated(), GenerateAlone(*model, tokenizer, requests[i])) << "session " << i;
  }
  // All that are not of prompts, at any place of their chunks and whatever the others do.
  EXPECT_EQ(harness.runner().decoder()->rows(), 5 * 59);
  EXPECT_EQ(harness.runner().decoder()->graphs() > 0, OnCuda());
}

TEST(FixedDecoderTest, TakesNoMemoryOnceItIsWarm) {
  const ByteTokenizer tokenizer;
  const auto model = MakeTinyModel();
  SchedulerHarness harness(*model, tokenizer, {}, *FixedDecoder::Create(*model, {.on_failure = Report}));
  const FixedDecoder& decoder = *harness.runner().decoder();
  for (uint64_t id = 1; id <= 3; ++id) {
    GenerationRequest request = RequestOf("plain", id == 1 ? 0.0F : 0.8F);
    ASSERT_TRUE(harness.Add(id, request, std::make_shared<RecordingSink>()).ok());
  }
  for (int turn = 0; turn < 20 && decoder.steps() < 3; ++turn) harness.Turn();
  const int64_t warm = Taken();
  for (int turn = 0; turn < 20; ++turn) harness.Turn();  // all within the least shape's four blocks
  EXPECT_EQ(decoder.steps(), 23);
  EXPECT_GT(warm, 0);
  EXPECT_EQ(Taken(), warm);
}

TEST(FixedDecoderTest, WhatASequenceBroughtIsLetGoOfWhenItEnds) {
  const auto model = MakeTinyModel();
  const auto decoder = *FixedDecoder::Create(*model, {.on_failure = Report});
  std::unique_ptr<Sequence> sequence = *model->NewSequence({});
  const std::vector<TokenId> prompt = Ids("one more"), next = Ids("x");  // the prompt is a chunk
  const ChunkNeighbours neighbours{1, std::vector<TokenId>(16, 5)};
  const std::vector<Piece> pieces = {{.sequence = sequence.get(), .tokens = prompt, .neighbours = {&neighbours, 1}}};
  ASSERT_TRUE(model->Forward(pieces).ok());
  const SamplingSettings settings;
  const SeenTokens seen(model->config().vocabulary);
  const FixedRow row{.sequence = 1,
                     .piece = {.sequence = sequence.get(), .tokens = next},
                     .sampling = {.settings = &settings, .seen = &seen}};
  ASSERT_TRUE(decoder->Takes(row));
  ASSERT_TRUE(decoder->Step({&row, 1}).has_value());
  const std::weak_ptr<const ChunkMemory> brought = sequence->state().memory;
  sequence.reset();
  EXPECT_FALSE(brought.expired());
  decoder->End(1);
  EXPECT_TRUE(brought.expired());
}

}  // namespace
}  // namespace retro

// Before torch takes its first memory.
int main(int argc, char** argv) {
  c10::SetCPUAllocator(&retro::KeepingAllocator::Instance(), /*priority=*/255);
  at::set_num_threads(1);  // the allocator is for one
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
