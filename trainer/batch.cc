#include "trainer/batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "common/base/strings.h"
#include "generator_service/model/chunk_geometry.h"

namespace retro {

struct BatchMaker::Rows {
  std::vector<int64_t> tokens, labels, neighbours, chunk_of, chunk_rows, attending_rows;
  std::vector<int32_t> segments;
  std::vector<uint8_t> neighbour_absent, chunk_rows_absent;  // bool
  int64_t chunks = 0;
  bool any_short = false;
};

namespace {

at::Tensor IntTensor(const std::vector<int64_t>& values, at::IntArrayRef shape) {
  return at::tensor(values, at::kLong).view(shape);
}

// By memcpy: batches are made on threads of their own, where an operator of torch's would start a pool of workers.
at::Tensor BoolTensor(const std::vector<uint8_t>& values, at::IntArrayRef shape) {
  const at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kBool);
  std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size());
  return tensor.view(shape);
}

at::Tensor Moved(const at::Tensor& tensor, const at::Device& device) {
  if (!tensor.defined() || device.is_cpu()) return tensor;
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace

Batch Batch::To(const at::Device& device) const {
  Batch moved = *this;
  for (at::Tensor* tensor : {&moved.tokens, &moved.labels, &moved.segments, &moved.neighbours, &moved.neighbour_absent,
                             &moved.chunk_of, &moved.chunk_rows, &moved.chunk_rows_absent, &moved.attending_rows}) {
    *tensor = Moved(*tensor, device);
  }
  return moved;
}

absl::Status CheckWindowLength(const ModelConfig& config, int64_t length) {
  if (length % config.chunk_length == 0 && length <= config.max_length) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat("the window must be a multiple of ", config.chunk_length, " tokens, at most ", config.max_length));
}

BatchMaker::BatchMaker(const DataSet& data, const NeighbourTable* neighbours, const ModelConfig& config,
                       const BatchOptions& options)
    : data_(data),
      neighbours_(config.cca_layers.empty() ? nullptr : neighbours),
      config_(config),
      options_(options),
      sampler_(data, options.length / config.chunk_length, options.seed, options.shuffle) {}

Batch BatchMaker::Make(uint64_t number) {
  Rows rows;
  const auto windows = static_cast<uint64_t>(options_.windows);
  for (uint64_t b = 0; b < windows; ++b) AddWindow(number * windows + b, rows);
  const int64_t m = config_.chunk_length;
  Batch batch;
  batch.tokens = IntTensor(rows.tokens, {options_.windows, options_.length});
  batch.labels = IntTensor(rows.labels, {options_.windows, options_.length});
  batch.segments = at::tensor(rows.segments, at::kInt).view({options_.windows, options_.length});
  batch.label_count = std::ranges::count_if(rows.labels, [](int64_t label) { return label != kIgnoredLabel; });
  if (rows.chunks == 0) return batch;
  batch.neighbours = IntTensor(rows.neighbours, {-1, config_.neighbour_length});
  batch.neighbour_absent = BoolTensor(rows.neighbour_absent, {rows.chunks, -1});
  batch.chunk_of = IntTensor(rows.chunk_of, {-1});
  batch.chunk_rows = IntTensor(rows.chunk_rows, {-1});
  batch.attending_rows = IntTensor(rows.attending_rows, {-1});
  if (rows.any_short) batch.chunk_rows_absent = BoolTensor(rows.chunk_rows_absent, {rows.chunks, m});
  return batch;
}

int64_t BatchMaker::CountLabels(uint64_t number) {
  const auto windows = static_cast<uint64_t>(options_.windows);
  int64_t labels = 0;
  for (uint64_t index = number * windows; index < (number + 1) * windows; ++index) {
    const std::vector<Slot> window = sampler_.Window(index);
    // The short chunk before the first slot is text throughout.
    const int64_t offset = Offset(window, index);
    labels += offset;
    int64_t left = options_.length - offset;  // places
    for (const Slot& slot : window) {
      const uint64_t chunk = data_.first_chunk(slot.document) + slot.chunk;
      const bool is_text = chunk < data_.end_chunk(slot.document);  // else the eos alone
      if (is_text) labels += std::clamp<int64_t>(left, 0, data_.chunks()[chunk].tokens);
      left -= config_.chunk_length;
    }
  }
  return labels;
}

// The length of the short chunk that the window begins with; 0: none, as where the chunk before is not m tokens of
// text.
int64_t BatchMaker::Offset(const std::vector<Slot>& window, uint64_t index) const {
  const uint64_t seed = WindowSeed();
  const Slot& slot = window[0];
  if (MixedUnit(seed, 3 * index) >= options_.offset_share || slot.chunk == 0) return 0;
  if (data_.chunks()[data_.first_chunk(slot.document) + slot.chunk - 1].tokens < config_.chunk_length) return 0;
  return 1 + static_cast<int64_t>(MixedBits(seed, 3 * index + 1) % static_cast<uint64_t>(config_.chunk_length - 1));
}

void BatchMaker::AddWindow(uint64_t index, Rows& rows) {
  const std::vector<Slot> window = sampler_.Window(index);
  const int64_t offset = Offset(window, index);
  AddTokens(window, offset, rows);
  const bool retrieval = MixedUnit(WindowSeed(), 3 * index + 2) >= options_.no_retrieval_share;
  if (neighbours_ != nullptr && retrieval) AddChunks(window, offset, rows);
}

uint64_t BatchMaker::EosOf(uint64_t document) const {
  return data_.documents()[document].first_token + data_.text_tokens(document);
}

// A slot's chunk, and the eos if that follows at once and has room; the eos alone behind a document's last chunk.
BatchMaker::SlotTokens BatchMaker::TokensOf(const Slot& slot) const {
  const uint64_t chunk = data_.first_chunk(slot.document) + slot.chunk;
  if (chunk >= data_.end_chunk(slot.document)) return {EosOf(slot.document), 1};
  const ChunkRow& row = data_.chunks()[chunk];
  const bool eos_fits = chunk + 1 == data_.end_chunk(slot.document) && row.tokens < config_.chunk_length;
  return {row.first_token, static_cast<int64_t>(row.tokens) + (eos_fits ? 1 : 0)};
}

// Whether the text of `next` is seen from that of `slot` on. Not behind a chunk that ended before a split character:
// what fills it up to m is no text.
bool BatchMaker::GoesOn(const Slot& slot, const Slot& next) const {
  if (next.document != slot.document || next.chunk != slot.chunk + 1) return false;
  return data_.chunks()[data_.first_chunk(slot.document) + slot.chunk].tokens == config_.chunk_length;
}

// The `offset` tokens before the window's first chunk, then as much of its chunks as fits.
void BatchMaker::AddTokens(const std::vector<Slot>& window, int64_t offset, Rows& rows) const {
  const int64_t m = config_.chunk_length;
  int32_t segment = 0;
  for (int64_t t = 0; t < options_.length; ++t) {
    const int64_t s = t < offset ? 0 : (t - offset) / m;
    const Slot& slot = window[s];
    if (t > offset && (t - offset) % m == 0 && !GoesOn(window[s - 1], slot)) ++segment;
    const SlotTokens there = TokensOf(slot);
    const int64_t i = t - offset - s * m;  // in the slot; negative in the chunk before the first one
    const uint64_t token = there.first + static_cast<uint64_t>(i);
    const bool is_there = i < there.count;
    const bool is_eos = token == EosOf(slot.document);
    TokenId ids[2] = {data_.header().pad_id, 0};  // the token and the one after it
    if (is_there) data_.CopyTokens(token, is_eos ? 1 : 2, ids);
    rows.tokens.push_back(ids[0]);
    rows.labels.push_back(is_there && !is_eos ? ids[1] : kIgnoredLabel);
    rows.segments.push_back(segment);
  }
}

void BatchMaker::AddChunks(const std::vector<Slot>& window, int64_t offset, Rows& rows) const {
  const int64_t m = config_.chunk_length;
  const int64_t n = options_.length;
  const int64_t nowhere = options_.windows * n;
  const auto first_row = static_cast<int64_t>(rows.tokens.size()) - n;  // of this window
  const ChunkGeometry geometry(m, offset);
  for (int64_t u = 0; u < geometry.CompleteChunks(n); ++u) {
    // A window that begins with a short chunk has the end of the chunk before its first slot there.
    Slot slot = offset == 0 ? window[u] : window[std::max<int64_t>(u - 1, 0)];
    if (offset > 0 && u == 0) --slot.chunk;
    const uint64_t chunk = data_.first_chunk(slot.document) + slot.chunk;
    const bool full = chunk < data_.end_chunk(slot.document) && data_.chunks()[chunk].tokens == m;
    if (!full || !AddNeighbours(chunk, rows)) continue;
    const int64_t last = geometry.End(u) - 1;
    for (int64_t i = 0; i < m; ++i) {
      const int64_t own = last - m + 1 + i;
      const bool there = own >= geometry.Begin(u);
      rows.chunk_rows.push_back(there ? first_row + own : nowhere);
      rows.chunk_rows_absent.push_back(there ? 0 : 1);
      rows.any_short = rows.any_short || !there;
      const int64_t attending = last + i;
      const bool same = attending < n && rows.segments[first_row + attending] == rows.segments[first_row + last];
      rows.attending_rows.push_back(same ? first_row + attending : nowhere);
    }
    ++rows.chunks;
  }
}

bool BatchMaker::AddNeighbours(uint64_t chunk, Rows& rows) const {
  const std::span<const uint32_t> found =
      neighbours_->Of(chunk).first(std::min<size_t>(static_cast<size_t>(options_.k), neighbours_->Of(chunk).size()));
  if (found.empty() || found[0] == kNoNeighbour) return false;
  std::vector<TokenId> tokens(config_.neighbour_length);
  for (int64_t j = 0; j < options_.k; ++j) {
    // In the place of a neighbour that is lacking the first one is encoded, and masked as a key.
    const bool there = j < static_cast<int64_t>(found.size()) && found[j] != kNoNeighbour;
    neighbours_->CopyTokens(there ? found[j] : found[0], static_cast<TokenId>(config_.pad_id), tokens);
    for (const TokenId id : tokens) {
      rows.neighbours.push_back(id);
      rows.neighbour_absent.push_back(!there || (config_.mask_pad && id == config_.pad_id) ? 1 : 0);
    }
    rows.chunk_of.push_back(rows.chunks);
  }
  return true;
}

}  // namespace retro
