// The scheduler by itself, under a clock that the test moves.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "tests/scheduler_harness.h"

namespace retro {

class SchedulerTest : public testing::Test {
 protected:
  GenerationRequest Request(std::string_view prompt, int64_t max_tokens, bool retrieval = true) {
    GenerationRequest request;
    request.prompt = Ids(prompt);
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    request.retrieval.enabled = retrieval;
    request.retrieval.offset = static_cast<int64_t>(prompt.size()) % 8;
    request.retrieval.on_failure = FailurePolicy::kGoOnWithout;
    return request;
  }

  // One without retrieval, which takes `tokens` in all, so many of them its prompt.
  GenerationRequest Plain(int64_t tokens, const std::string& key = "", int64_t prompt = 1) {
    GenerationRequest request = Request(std::string(prompt, 'x'), tokens - prompt, /*retrieval=*/false);
    request.sampling.logit_bias = {{3, -100.0F}};  // no end of text
    request.key = key;
    return request;
  }
  // Adds one for an id that is new; its sink.
  std::shared_ptr<RecordingSink> Add(SchedulerHarness& harness, GenerationRequest request) {
    auto sink = std::make_shared<RecordingSink>();
    EXPECT_TRUE(harness.Add(++last_id_, std::move(request), sink).ok());
    return sink;
  }

  const ByteTokenizer tokenizer_;
  const std::unique_ptr<RetroModel> model_ = MakeTinyModel();
  uint64_t last_id_ = 0;
};

}  // namespace retro
