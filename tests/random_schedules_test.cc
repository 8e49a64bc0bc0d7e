// Seeded random schedules: arrivals, cancels, slow and failing look-ups, readers that stall, deadlines, drains.
// Whatever happens around it, every session gets the tokens that it gets alone (or the beginning of them, if it was
// cut), every bound is kept, and no place or cache is left behind.
//
// Runs the seeds 1 ... 300; RETRO_SCHEDULES=FIRST:COUNT chooses others. A failure names its seed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <charconv>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>

#include "common/base/error.h"
#include "tests/scheduler_harness.h"

namespace retro {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kContext = 24;
constexpr int kRequests = 48;
constexpr int kTurnsMax = 3000;
constexpr SchedulerLimits kLimits = {.sessions_max = 3,
                                     .waiting_max = 2,
                                     .cache_blocks_max = 7,
                                     .prefill_tokens_max = 7,
                                     .prefill_tokens_shared_max = 3,
                                     .encoder_rows_max = 2,
                                     .stall_ms_max = milliseconds(1000)};

struct PreparedRequest {
  GenerationRequest request;
  std::vector<TokenId> alone;  // where look-ups fail as the made-up store has it
};

PreparedRequest RandomRequest(const RetroModel& model, const Tokenizer& tokenizer, std::mt19937& random) {
  PreparedRequest prepared;
  GenerationRequest& request = prepared.request;
  for (size_t i = 0, length = 1 + random() % 18; i < length; ++i)
    request.prompt.push_back(static_cast<TokenId>(4 + random() % 256));
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  request.max_tokens = static_cast<int64_t>(1 + random() % 14);
  request.slide = prompt + request.max_tokens > kContext;
  request.sampling.temperature = random() % 2 == 0 ? 0.0F : 0.8F;
  request.sampling.repetition_penalty = random() % 3 == 0 ? 1.3F : 1.0F;
  request.sampling.top_logprobs = static_cast<int>(random() % 3);
  request.sampling.seed = random();
  request.retrieval.enabled = random() % 5 != 0;
  request.retrieval.offset = static_cast<int64_t>(random() % 8);
  request.retrieval.on_failure = random() % 4 == 0 ? FailurePolicy::kFail : FailurePolicy::kGoOnWithout;
  request.attribution = random() % 2 == 0;
  if (random() % 3 == 0) request.echo_from = static_cast<int64_t>(random() % static_cast<uint64_t>(prompt));
  if (random() % 8 == 0) {  // scored
    request.max_tokens = 0;
    request.slide = false;
    request.echo_from = static_cast<int64_t>(random() % static_cast<uint64_t>(prompt));
  }
  prepared.alone = GenerateAlone(model, tokenizer, request, /*failures=*/true);
  return prepared;
}

class RandomSchedulesTest : public testing::Test {
 protected:
  struct Running {
    const PreparedRequest* prepared = nullptr;
    std::shared_ptr<RecordingSink> sink;
    bool cancelled = false;
    bool stalls = false;   // its reader never reads
    bool expires = false;  // it has a deadline
    bool hurries = false;  // its look-ups have little time
  };
  struct Schedule {
    Schedule(const RetroModel& model, const Tokenizer& tokenizer, uint32_t seed, std::unique_ptr<FixedDecoder> decoder)
        : random(seed),
          harness(model, tokenizer, kLimits, std::move(decoder)),
          arrivals(3 + random() % 5),
          keys(random() % 4),
          drains(random() % 8 == 0) {}
    std::mt19937 random;
    SchedulerHarness harness;
    size_t arrivals;
    size_t keys;  // whose the sessions are; none: nobody's in particular
    bool drains;
    std::map<uint64_t, Running> sessions;
  };

  void SetUp() override {
    std::mt19937 random(4711);
    for (int i = 0; i < kRequests; ++i) prepared_.push_back(RandomRequest(*model_, tokenizer_, random));
  }

  void Arrive(Schedule& schedule);
  void Disturb(Schedule& schedule);
  void RunAll(bool fixed);
  // How many steps a fixed decoder took, if there is to be one.
  int64_t Run(uint32_t seed, bool fixed);
  void Check(const Running& session) const;

  const ByteTokenizer tokenizer_;
  const std::unique_ptr<RetroModel> model_ = MakeTinyModel(7, kContext);
  std::vector<PreparedRequest> prepared_;
};

void RandomSchedulesTest::Arrive(Schedule& schedule) {
  std::mt19937& random = schedule.random;
  Running session{.prepared = &prepared_[random() % prepared_.size()], .sink = std::make_shared<RecordingSink>()};
  session.stalls = random() % 15 == 0;
  session.expires = random() % 10 == 0;
  session.hurries = random() % 6 == 0;
  GenerationRequest request = session.prepared->request;
  if (schedule.keys > 0) request.key = std::to_string(random() % schedule.keys);
  request.arrival = schedule.harness.now();
  request.retrieval.timeout_ms = milliseconds(session.hurries ? 1 + random() % 10 : 100'000);
  if (session.expires) request.deadline = request.arrival + milliseconds(5 + random() % 100);
  const uint64_t id = schedule.sessions.size() + 1;
  const absl::Status added = schedule.harness.Add(id, std::move(request), session.sink);
  if (added.ok()) {
    schedule.sessions[id] = std::move(session);
  } else {
    EXPECT_EQ(added.code(), absl::StatusCode::kResourceExhausted) << added;
  }
}

void RandomSchedulesTest::Disturb(Schedule& schedule) {
  std::mt19937& random = schedule.random;
  SchedulerHarness& harness = schedule.harness;
  if (!schedule.sessions.empty() && random() % 30 == 0) {
    const uint64_t id = 1 + random() % schedule.sessions.size();
    Running& victim = schedule.sessions.at(id);
    victim.cancelled |= !victim.sink->ended();
    harness.scheduler().Cancel(id, harness.now());
  }
  // A leap ends the patience of look-ups, but not that of readers who only pause.
  const bool leap = random() % 60 == 0;
  if (leap) harness.now() += milliseconds(300);
  for (auto& [id, session] : schedule.sessions) session.sink->SetRoom(!session.stalls && (leap || random() % 6 != 0));
  if (!harness.lookups().empty() && random() % 3 == 0) harness.Answer(random() % harness.lookups().size(), true);
}

void RandomSchedulesTest::Check(const Running& session) const {
  ASSERT_TRUE(session.sink->ended());
  const std::vector<TokenId> got = session.sink->Generated();
  const GenerationRequest& request = session.prepared->request;
  std::vector<TokenId> alone = session.prepared->alone;
  // A look-up that timed out leaves other neighbours than the made-up store has: alone with those.
  if (session.hurries) alone = GenerateAlone(*model_, tokenizer_, request, session.sink->chunks());
  if (session.sink->finish().has_value() && session.sink->finish()->cause != FinishCause::kDrained) {
    EXPECT_EQ(got, alone);
    return;
  }
  ASSERT_LE(got.size(), alone.size());
  EXPECT_TRUE(std::equal(got.begin(), got.end(), alone.begin()));
  if (session.sink->finish().has_value()) {
    std::vector<TokenId> all = request.prompt;
    all.insert(all.end(), got.begin(), got.end());
    EXPECT_EQ(session.sink->finish()->tokens, all);
    return;
  }
  const absl::Status error = session.sink->error();
  const bool told = (absl::IsCancelled(error) && (session.cancelled || session.stalls)) ||
                    (absl::IsDeadlineExceeded(error) && session.expires) ||
                    (absl::IsUnavailable(error) && request.retrieval.on_failure == FailurePolicy::kFail);
  EXPECT_TRUE(told) << error;
}

int64_t RandomSchedulesTest::Run(uint32_t seed, bool fixed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ": RETRO_SCHEDULES=" << seed << ":1 repeats it");
  std::unique_ptr<FixedDecoder> decoder;
  if (fixed) {  // with too few slots and too little room in them for all
    decoder = *FixedDecoder::Create(
        *model_,
        {.rows_max = 2, .neighbours_max = 1, .on_failure = [](const absl::Status& why) { ADD_FAILURE() << why; }});
  }
  Schedule schedule(*model_, tokenizer_, seed, std::move(decoder));
  SchedulerHarness& harness = schedule.harness;
  for (int turn = 0; turn < kTurnsMax; ++turn) {
    if (schedule.sessions.size() < schedule.arrivals && schedule.random() % 4 == 0) Arrive(schedule);
    Disturb(schedule);
    harness.Turn();
    if (schedule.drains && schedule.sessions.size() == schedule.arrivals && schedule.random() % 10 == 0)
      harness.scheduler().Drain(harness.now());
    if (schedule.sessions.size() == schedule.arrivals &&
        harness.scheduler().running() + harness.scheduler().waiting() == 0)
      break;
  }
  harness.Turn();
  EXPECT_EQ(harness.scheduler().running(), 0);
  EXPECT_EQ(harness.scheduler().waiting(), 0);
  EXPECT_EQ(harness.scheduler().cache_blocks(), 0);
  EXPECT_TRUE(harness.runner().live().empty());
  for (const auto& [id, session] : schedule.sessions) {
    SCOPED_TRACE(testing::Message() << "session " << id);
    Check(session);
  }
  return fixed ? harness.runner().decoder()->steps() : 0;
}

void RandomSchedulesTest::RunAll(bool fixed) {
  uint32_t first = 1;
  uint32_t count = 300;
  int64_t steps = 0;
  if (const char* chosen = std::getenv("RETRO_SCHEDULES")) {
    const std::string_view text = chosen;
    const size_t colon = text.find(':');
    ASSERT_NE(colon, std::string_view::npos) << "RETRO_SCHEDULES=FIRST:COUNT";
    std::from_chars(text.data(), text.data() + colon, first);
    std::from_chars(text.data() + colon + 1, text.data() + text.size(), count);
  }
  std::cout << "seeds " << first << " ... " << first + count - 1 << "\n";
  for (uint32_t seed = first; seed < first + count && !HasFailure(); ++seed) steps += Run(seed, fixed);
  EXPECT_EQ(steps > 0, fixed);
}

TEST_F(RandomSchedulesTest, EverySessionGetsTheTokensThatItGetsAlone) { RunAll(/*fixed=*/false); }

TEST_F(RandomSchedulesTest, AndSoItDoesInStepsOfFixedShape) { RunAll(/*fixed=*/true); }

}  // namespace
}  // namespace retro
