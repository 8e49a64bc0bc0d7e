#include "tests/fake_neighbours.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>

namespace retro {
namespace {

constexpr int64_t kChunk = 8;

uint64_t HashOf(const std::vector<TokenId>& chunk) {
  uint64_t hash = 1469598103934665603U;
  for (const TokenId id : chunk) hash = (hash ^ static_cast<uint64_t>(id)) * 1099511628211U;
  return hash ^ (hash >> 29);
}

// Of every complete chunk. The prompt's chunks are looked up in one call, so they fail together.
std::vector<ChunkNeighbours> NeighboursOf(const std::vector<TokenId>& tokens, const ChunkGeometry& geometry,
                                          int64_t prompt_length, bool failures) {
  std::vector<std::vector<TokenId>> chunks;
  const int64_t complete = geometry.CompleteChunks(static_cast<int64_t>(tokens.size()));
  chunks.reserve(complete);
  for (int64_t chunk = 0; chunk < complete; ++chunk) {
    chunks.emplace_back(tokens.begin() + geometry.Begin(chunk), tokens.begin() + geometry.End(chunk));
  }
  const auto of_prompt = static_cast<size_t>(geometry.CompleteChunks(prompt_length));
  const bool prompt_fails =
      std::any_of(chunks.begin(), chunks.begin() + static_cast<ptrdiff_t>(of_prompt), MadeUpFailure);
  std::vector<ChunkNeighbours> neighbours;
  for (size_t chunk = 0; chunk < chunks.size(); ++chunk) {
    const bool fails = failures && (chunk < of_prompt ? prompt_fails : MadeUpFailure(chunks[chunk]));
    neighbours.push_back(fails ? ChunkNeighbours{} : MadeUpNeighbours(chunks[chunk]).rows);
  }
  return neighbours;
}

// In as few pieces as a sliding window allows: one, where it does not slide.
at::Tensor LastLogits(const RetroModel& model, Sequence& sequence, std::span<const TokenId> tokens,
                      std::span<const ChunkNeighbours> neighbours) {
  at::Tensor last;
  while (!tokens.empty()) {
    const int64_t count = std::min(static_cast<int64_t>(tokens.size()), sequence.room());
    const auto chunks = static_cast<size_t>(neighbours.empty() ? 0 : sequence.ChunksCompletedBy(count));
    const Piece piece{.sequence = &sequence,
                      .tokens = tokens.first(static_cast<size_t>(count)),
                      .neighbours = neighbours.first(chunks)};
    const auto logits = model.Forward(std::span(&piece, 1));
    EXPECT_TRUE(logits.ok()) << logits.status();
    if (!logits.ok()) return at::zeros({model.config().vocabulary});
    last = (*logits)[0].to(at::kCPU).contiguous();
    tokens = tokens.subspan(static_cast<size_t>(count));
    neighbours = neighbours.subspan(chunks);
  }
  return last;
}

using NeighboursOfText =
    std::function<std::vector<ChunkNeighbours>(const std::vector<TokenId>& tokens, const ChunkGeometry& geometry)>;

// `neighbours_of` gives those of a text's complete chunks.
std::vector<TokenId> GenerateWith(const RetroModel& model, const Tokenizer& tokenizer, const GenerationRequest& request,
                                  const NeighboursOfText& neighbours_of) {
  std::vector<TokenId> tokens = request.prompt;
  Sampler sampler(model.config().vocabulary);
  SeenTokens seen(model.config().vocabulary);
  for (const TokenId id : tokens) seen.Add(id);
  std::vector<TokenId> generated;
  while (static_cast<int64_t>(generated.size()) < request.max_tokens) {
    SequenceOptions options;
    options.offset = request.retrieval.offset;
    options.retrieval = request.retrieval.enabled;
    options.slide = request.slide;
    auto sequence = *model.NewSequence(options);
    const auto length = static_cast<int64_t>(tokens.size());
    const std::vector<ChunkNeighbours> neighbours =
        options.retrieval ? neighbours_of(tokens, sequence->geometry()) : std::vector<ChunkNeighbours>();
    const at::Tensor row = LastLogits(model, *sequence, tokens, neighbours);
    const std::span<const float> values(row.const_data_ptr<float>(), static_cast<size_t>(row.numel()));
    const TokenId id = sampler.Sample(values, request.sampling, seen, static_cast<uint64_t>(length))->id;
    tokens.push_back(id);
    seen.Add(id);
    generated.push_back(id);
    if (id == tokenizer.eos_id()) break;
    if (std::find(request.stop_ids.begin(), request.stop_ids.end(), id) != request.stop_ids.end()) break;
  }
  return generated;
}

}  // namespace

FoundNeighbours MadeUpNeighbours(const std::vector<TokenId>& chunk) {
  uint64_t state = HashOf(chunk);
  const auto next = [&state](uint64_t below) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (state >> 33) % below;
  };
  FoundNeighbours found;
  found.rows.count = static_cast<int64_t>(next(3));
  for (int64_t i = 0; i < found.rows.count; ++i) {
    const auto continuation = static_cast<int64_t>(next(kChunk + 1));
    for (int64_t t = 0; t < 2 * kChunk; ++t) {
      found.rows.tokens.push_back(t < kChunk + continuation ? static_cast<TokenId>(4 + next(256)) : 0);
    }
  }
  return found;
}

bool MadeUpFailure(const std::vector<TokenId>& chunk) { return HashOf(chunk) % 5 == 0; }

LookupAnswer MadeUpAnswer(const LookupRequest& request) {
  LookupAnswer answer;
  for (const ChunkQuery& query : request.chunks) answer.chunks.push_back(MadeUpNeighbours(query.tokens));
  return answer;
}

std::vector<TokenId> GenerateAlone(const RetroModel& model, const Tokenizer& tokenizer,
                                   const GenerationRequest& request, bool failures) {
  const auto prompt_length = static_cast<int64_t>(request.prompt.size());
  return GenerateWith(model, tokenizer, request,
                      [&](const std::vector<TokenId>& tokens, const ChunkGeometry& geometry) {
                        return NeighboursOf(tokens, geometry, prompt_length, failures);
                      });
}

std::vector<TokenId> GenerateAlone(const RetroModel& model, const Tokenizer& tokenizer,
                                   const GenerationRequest& request, const std::vector<ChunkOutput>& events) {
  return GenerateWith(model, tokenizer, request,
                      [&](const std::vector<TokenId>& tokens, const ChunkGeometry& geometry) {
                        const int64_t chunks = geometry.CompleteChunks(static_cast<int64_t>(tokens.size()));
                        std::vector<ChunkNeighbours> neighbours(static_cast<size_t>(chunks));
                        for (size_t i = 0; i < neighbours.size() && i < events.size(); ++i) {
                          neighbours[i] = events[i].found.rows;
                        }
                        return neighbours;
                      });
}

void FakeSource::Lookup(std::vector<LookupRequest> requests, Callback done) {
  {
    MutexLock lock(mutex_);
    requests_.insert(requests_.end(), requests.begin(), requests.end());
    if (hold_) {
      for (LookupRequest& request : requests) held_.push_back({std::move(request), done});
      return;
    }
  }
  for (const LookupRequest& request : requests) done(request.lookup, MadeUpAnswer(request));
}

void FakeSource::CancelLookup(uint64_t lookup) {
  MutexLock lock(mutex_);
  cancelled_.push_back(lookup);
}

void FakeSource::Hold(bool hold) {
  MutexLock lock(mutex_);
  hold_ = hold;
}

bool FakeSource::Answer(absl::StatusOr<LookupAnswer> answer) {
  Held held;
  {
    MutexLock lock(mutex_);
    if (held_.empty()) return false;
    held = std::move(held_.front());
    held_.pop_front();
  }
  held.done(held.request.lookup, std::move(answer));
  return true;
}

bool FakeSource::AnswerMadeUp() {
  LookupAnswer answer;
  {
    MutexLock lock(mutex_);
    if (held_.empty()) return false;
    answer = MadeUpAnswer(held_.front().request);
  }
  return Answer(std::move(answer));
}

std::vector<LookupRequest> FakeSource::requests() const {
  MutexLock lock(mutex_);
  return requests_;
}

std::vector<uint64_t> FakeSource::cancelled() const {
  MutexLock lock(mutex_);
  return cancelled_;
}

size_t FakeSource::held() const {
  MutexLock lock(mutex_);
  return held_.size();
}

void RecordingSink::OnToken(TokenOutput output) {
  MutexLock lock(mutex_);
  tokens_.push_back(std::move(output));
  changed_.NotifyAll();
}

void RecordingSink::OnChunk(ChunkOutput output) {
  MutexLock lock(mutex_);
  chunks_.push_back(std::move(output));
}

void RecordingSink::OnFinish(FinishOutput output) {
  MutexLock lock(mutex_);
  EXPECT_FALSE(ended_) << "a stream ended twice";
  finish_ = std::move(output);
  ended_ = true;
  changed_.NotifyAll();
}

void RecordingSink::OnError(absl::Status status) {
  MutexLock lock(mutex_);
  EXPECT_FALSE(ended_) << "a stream ended twice";
  error_ = std::move(status);
  ended_ = true;
  changed_.NotifyAll();
}

bool RecordingSink::HasRoom() const {
  MutexLock lock(mutex_);
  return room_;
}

void RecordingSink::SetRoom(bool room) {
  MutexLock lock(mutex_);
  room_ = room;
}

void RecordingSink::AwaitEnd() {
  MutexLock lock(mutex_);
  while (!ended_) changed_.Wait(mutex_);
}

void RecordingSink::AwaitTokens(size_t count) {
  MutexLock lock(mutex_);
  while (!ended_ && GeneratedCount() < count) changed_.Wait(mutex_);
}

bool RecordingSink::ended() const {
  MutexLock lock(mutex_);
  return ended_;
}

size_t RecordingSink::GeneratedCount() const {
  return static_cast<size_t>(std::count_if(tokens_.begin(), tokens_.end(), [](const auto& t) { return !t.prompt; }));
}

std::vector<TokenId> RecordingSink::Generated() const {
  MutexLock lock(mutex_);
  std::vector<TokenId> ids;
  for (const TokenOutput& token : tokens_) {
    if (!token.prompt) ids.push_back(token.token.id);
  }
  return ids;
}

std::vector<TokenOutput> RecordingSink::tokens() const {
  MutexLock lock(mutex_);
  return tokens_;
}

std::vector<ChunkOutput> RecordingSink::chunks() const {
  MutexLock lock(mutex_);
  return chunks_;
}

std::optional<FinishOutput> RecordingSink::finish() const {
  MutexLock lock(mutex_);
  return finish_;
}

absl::Status RecordingSink::error() const {
  MutexLock lock(mutex_);
  return error_;
}

std::string RecordingSink::Text() const {
  MutexLock lock(mutex_);
  std::string text;
  for (const TokenOutput& token : tokens_) text += token.text;
  return text + (finish_.has_value() ? finish_->text : "");
}

}  // namespace retro
