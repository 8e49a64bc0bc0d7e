#include "trainer/nearest_chunks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"
#include "trainer/append_file.h"
#include "trainer/data_set_writer.h"

namespace retro {
namespace {

constexpr int64_t kGroup = 64;  // scores looked at through their maximum first
constexpr uint64_t kResidentBytesMax = uint64_t{8} << 30;
constexpr uint64_t kResidentPart = 4;  // of a CPU's memory that is available, at most one part in so many
constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct BlockSizes {
  uint64_t queries;
  uint64_t rows;
};

// Bound the scores that are held at a time: 32 MiB on a CPU, 1 GiB on a GPU.
BlockSizes SizesFor(const at::Device& device) {
  return device.is_cpu() ? BlockSizes{512, 16384} : BlockSizes{4096, 65536};
}

// A part of a database, and the number of its first row among all databases.
struct Block {
  const DataSet* database;
  const ChunkVectors* vectors;
  uint64_t first_row;  // in the database
  uint64_t rows;
  uint64_t first_number;
  at::Tensor resident;                                // on the device, where all fit
  const std::vector<std::vector<uint64_t>>* same_as;  // see SameDocuments
};

at::Tensor UploadRows(const ChunkVectors& vectors, uint64_t first, uint64_t rows, const at::Device& device) {
  const int64_t dimension = vectors.header.dimension;
  char* bytes = const_cast<char*>(vectors.file.bytes().data()) + first * dimension * 2;  // read only
  return at::from_blob(bytes, {static_cast<int64_t>(rows), dimension}, at::kHalf).to(device).to(at::kFloat);
}

class Search {
 public:
  Search(const DataSet& data, std::span<const DataSet* const> databases, const NearestOptions& options)
      : data_(data), databases_(databases), options_(options), sizes_(SizesFor(options.device)) {}

  absl::Status OpenVectors() {
    vectors_.reserve(databases_.size());
    same_.reserve(databases_.size());
    uint64_t number = 0;
    for (const DataSet* database : databases_) {
      RETRO_ASSIGN_OR_RETURN(ChunkVectors opened, ChunkVectors::Open(*database));
      vectors_.push_back(std::move(opened));
      RETRO_ASSIGN_OR_RETURN(same_.emplace_back(), SameDocuments(data_, *database));
    }
    RETRO_ASSIGN_OR_RETURN(ChunkVectors own, ChunkVectors::Open(data_));
    own_.push_back(std::move(own));
    for (size_t d = 0; d < databases_.size(); ++d) {
      if (vectors_[d].header.embedder_fingerprint != own_[0].header.embedder_fingerprint) {
        return absl::FailedPreconditionError(StrCat(databases_[d]->folder(), " and ", data_.folder(),
                                                    " were embedded by different embedders: embed one again"));
      }
      const uint64_t chunks = databases_[d]->header().chunks;
      for (uint64_t first = 0; first < chunks; first += sizes_.rows) {
        const uint64_t rows = std::min(sizes_.rows, chunks - first);
        blocks_.push_back({databases_[d], &vectors_[d], first, rows, number + first, {}, &same_[d]});
      }
      number += chunks;
    }
    if (number >= kNoNeighbour) return absl::ResourceExhaustedError("the databases have more than 2^32 chunks");
    const bool fits = number * own_[0].header.dimension * sizeof(float) <= ResidentBytesMax(options_.device);
    for (Block& block : blocks_) {
      if (fits) block.resident = UploadRows(*block.vectors, block.first_row, block.rows, options_.device);
    }
    return absl::OkStatus();
  }

  const std::string& embedder_fingerprint() const { return own_[0].header.embedder_fingerprint; }
  uint64_t query_block() const { return sizes_.queries; }

  // Numbers of the k nearest of the chunks [first, first + count): [count, k] uint32.
  std::vector<uint32_t> Run(uint64_t first, uint64_t count) const {
    const at::Tensor queries = UploadRows(own_[0], first, count, options_.device);
    TopRows best;
    for (const Block& block : blocks_) {
      const at::Tensor rows = block.resident.defined()
                                  ? block.resident
                                  : UploadRows(*block.vectors, block.first_row, block.rows, options_.device);
      at::Tensor scores = at::matmul(queries, rows.t());
      LeaveOutOwn(block, first, scores);
      TopRows found = LargestOf(scores, options_.k);
      found.rows = found.rows + static_cast<int64_t>(block.first_number);
      best = best.scores.defined() ? Merge(best, found) : std::move(found);
    }
    const at::Tensor missing = best.scores.eq(kLowest);
    const at::Tensor numbers =
        best.rows.masked_fill(missing, static_cast<int64_t>(kNoNeighbour)).to(at::kCPU).contiguous();
    const auto* values = numbers.const_data_ptr<int64_t>();
    std::vector<uint32_t> result(values, values + numbers.numel());
    return result;
  }

 private:
  // Documents are few and long: one narrow fill a document of the block.
  void LeaveOutOwn(const Block& block, uint64_t first, at::Tensor& scores) const {
    const auto end = first + static_cast<uint64_t>(scores.size(0));
    for (uint64_t chunk = first; chunk < end;) {
      const uint64_t document = data_.chunks()[chunk].document;
      const uint64_t next = std::min(end, data_.end_chunk(document));
      for (const uint64_t same : (*block.same_as)[document]) {
        const uint64_t left = std::max(block.database->first_chunk(same), block.first_row);
        const uint64_t right = std::min(block.database->end_chunk(same), block.first_row + block.rows);
        if (left >= right) continue;
        scores.narrow(0, static_cast<int64_t>(chunk - first), static_cast<int64_t>(next - chunk))
            .narrow(1, static_cast<int64_t>(left - block.first_row), static_cast<int64_t>(right - left))
            .fill_(kLowest);
      }
      chunk = next;
    }
  }

  TopRows Merge(const TopRows& a, const TopRows& b) const {
    const at::Tensor scores = at::cat({a.scores, b.scores}, 1);
    const auto [top, places] = scores.topk(options_.k, 1);
    return {top, at::cat({a.rows, b.rows}, 1).gather(1, places)};
  }

  const DataSet& data_;
  const std::span<const DataSet* const> databases_;
  const NearestOptions& options_;
  const BlockSizes sizes_;
  std::vector<ChunkVectors> vectors_;
  std::vector<ChunkVectors> own_;
  std::vector<std::vector<std::vector<uint64_t>>> same_;  // a database
  std::vector<Block> blocks_;
};

NeighbourHeader HeaderFor(const DataSet& data, std::span<const DataSet* const> databases, int64_t k,
                          const std::string& embedder_fingerprint) {
  NeighbourHeader header = {.k = k,
                            .chunks = data.header().chunks,
                            .data_fingerprint = data.header().fingerprint,
                            .tokenizer_fingerprint = data.header().tokenizer_fingerprint,
                            .embedder_fingerprint = embedder_fingerprint};
  const auto absolute = [](const std::string& path) { return std::filesystem::weakly_canonical(path); };
  for (const DataSet* database : databases) {
    header.databases.push_back({absolute(database->folder()).lexically_relative(absolute(data.folder())).string(),
                                database->header().fingerprint, database->header().chunks});
  }
  return header;
}

bool Same(const NeighbourHeader& a, const NeighbourHeader& b) {
  const auto same_database = [](const DatabaseRef& x, const DatabaseRef& y) { return x.fingerprint == y.fingerprint; };
  return a.k == b.k && a.chunks == b.chunks && a.data_fingerprint == b.data_fingerprint &&
         a.embedder_fingerprint == b.embedder_fingerprint &&
         std::ranges::equal(a.databases, b.databases, same_database);
}

// Chunks done by an earlier run: whole blocks, without the last one.
absl::StatusOr<uint64_t> ChunksDone(const std::string& partial, const NeighbourHeader& wanted, uint64_t block) {
  const absl::StatusOr<NeighbourHeader> begun = ReadNeighbourHeader(partial);
  if (begun.ok() && Same(*begun, wanted)) {
    std::error_code error;
    const uint64_t bytes = std::filesystem::file_size(partial + "/" + kNeighboursName, error);
    const uint64_t blocks = error ? 0 : bytes / (block * wanted.k * sizeof(uint32_t));
    return blocks > 0 ? (blocks - 1) * block : 0;
  }
  RETRO_RETURN_IF_ERROR(WriteNeighbourHeader(partial, wanted));
  return 0;
}

}  // namespace

uint64_t ResidentBytesMax(const at::Device& device) {
  if (!device.is_cpu()) return kResidentBytesMax;
  std::ifstream facts("/proc/meminfo");
  for (std::string name, unit; facts >> name;) {
    uint64_t kib = 0;
    if (name == "MemAvailable:" && facts >> kib) return std::min(kResidentBytesMax, (kib << 10) / kResidentPart);
    std::getline(facts, unit);
  }
  return 0;  // a system that does not say
}

TopRows LargestOf(const at::Tensor& scores, int64_t k) {
  const int64_t count = scores.size(1);
  if (count < 4 * kGroup * k) {
    const int64_t kept = std::min(k, count);
    auto [top, rows] = scores.topk(kept, 1);
    return {at::constant_pad_nd(top, {0, k - kept}, kLowest), at::constant_pad_nd(rows, {0, k - kept}, 0)};
  }
  // The k largest lie in the k groups with the largest maxima.
  const int64_t groups = (count + kGroup - 1) / kGroup;
  const at::Tensor padded =
      (groups * kGroup == count ? scores : at::constant_pad_nd(scores, {0, groups * kGroup - count}, kLowest))
          .unflatten(1, {groups, kGroup});                                                         // [Q, groups, 64]
  const at::Tensor chosen = std::get<1>(padded.amax(2).topk(k, 1));                                // [Q, k]
  const at::Tensor held = padded.gather(1, chosen.unsqueeze(2).expand({-1, -1, kGroup}));          // [Q, k, 64]
  const at::Tensor numbers = chosen.unsqueeze(2) * kGroup + at::arange(kGroup, chosen.options());  // likewise
  const auto [top, places] = held.flatten(1).topk(k, 1);
  return {top, numbers.flatten(1).gather(1, places)};
}

absl::Status FindNearestChunks(const DataSet& data, std::span<const DataSet* const> databases,
                               const NearestOptions& options, const Report& report) {
  return CatchTorch([&]() -> absl::Status {
    const c10::InferenceMode inference;
    // The vectors are fp16, whose products TF32 forms exactly.
    if (options.device.is_cuda()) at::globalContext().setAllowTF32CuBLAS(true);
    Search search(data, databases, options);
    RETRO_RETURN_IF_ERROR(search.OpenVectors());
    const NeighbourHeader wanted = HeaderFor(data, databases, options.k, search.embedder_fingerprint());
    const absl::StatusOr<NeighbourHeader> there = ReadNeighbourHeader(data.folder());
    if (there.ok() && Same(*there, wanted)) return absl::OkStatus();
    const std::string partial = StrCat(data.folder(), "/", kPartialFolder);
    RETRO_RETURN_IF_ERROR(MakeFolder(partial));
    RETRO_ASSIGN_OR_RETURN(uint64_t done, ChunksDone(partial, wanted, search.query_block()));
    RETRO_ASSIGN_OR_RETURN(AppendFile file,
                           AppendFile::Open(partial + "/" + kNeighboursName, done * options.k * sizeof(uint32_t)));
    while (done < wanted.chunks) {
      const uint64_t count = std::min(search.query_block(), wanted.chunks - done);
      const std::vector<uint32_t> numbers = search.Run(done, count);
      RETRO_RETURN_IF_ERROR(
          file.Append({reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(uint32_t)}));
      RETRO_RETURN_IF_ERROR(file.Sync());
      done += count;
      report(StrCat("found the neighbours of ", done, " of ", wanted.chunks, " chunks"));
    }
    RETRO_RETURN_IF_ERROR(PublishFile(data.folder(), kNeighboursName));
    return PublishFile(data.folder(), kNeighbourHeaderName);
  });
}

}  // namespace retro
