#include "generator_service/checkpoints/tensor_parallel.h"

#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/torch_archive.h"

namespace retro {
namespace {

namespace fs = std::filesystem;

constexpr int kRanksMax = 64;

enum class Merge { kRows, kColumns, kHalves, kEqual, kUnknown };

Merge RuleFor(const std::string& name, bool gated) {
  const auto ends = [&](std::initializer_list<const char*> suffixes) {
    for (const char* suffix : suffixes) {
      if (name.ends_with(suffix)) return true;
    }
    return false;
  };
  if (ends({"norm.weight", "norm.bias", "position_embeddings.weight", ".dense.bias", ".dense_4h_to_h.bias"})) {
    return Merge::kEqual;
  }
  if (ends({".dense_h_to_4h.weight", ".dense_h_to_4h.bias"})) return gated ? Merge::kHalves : Merge::kRows;
  if (ends({".query_key_value.weight", ".query_key_value.bias", ".query.weight", ".query.bias", ".key_value.weight",
            ".key_value.bias", "word_embeddings.weight", "output_layer.weight"})) {
    return Merge::kRows;
  }
  if (ends({".dense.weight", ".dense_4h_to_h.weight"})) return Merge::kColumns;
  return Merge::kUnknown;
}

class TensorParallel : public TensorSource {
 public:
  TensorParallel(std::string path, std::vector<std::unique_ptr<TorchArchive>> ranks, bool gated)
      : path_(std::move(path)), ranks_(std::move(ranks)), gated_(gated) {}

  absl::Status CheckRanks() {
    const auto size = static_cast<int64_t>(ranks_.size());
    for (const auto& rank : ranks_) {
      if (rank->shapes().size() != ranks_[0]->shapes().size()) {
        return absl::InvalidArgumentError(StrCat(rank->path(), " has other tensors than ", ranks_[0]->path()));
      }
    }
    for (const auto& [name, shape] : ranks_[0]->shapes()) {
      const Merge rule = RuleFor(name, gated_);
      const size_t dimension = rule == Merge::kColumns ? 1 : 0;
      if (rule == Merge::kUnknown || shape.size() <= dimension) {
        return absl::InvalidArgumentError(StrCat(path_, ": no rule merges tensor '", name, "' of the ranks"));
      }
      if (rule == Merge::kHalves && shape[0] % 2 != 0) {
        return absl::InvalidArgumentError(StrCat(path_, ": tensor '", name, "' of a gated FFW has ", shape[0],
                                                 " rows on a rank, which are no two halves"));
      }
      for (const auto& rank : ranks_) {
        const auto found = rank->shapes().find(name);
        if (found == rank->shapes().end() || found->second != shape) {
          return absl::InvalidArgumentError(
              StrCat(rank->path(), ": tensor '", name, "' is missing or of another shape than on rank 0"));
        }
      }
      std::vector<int64_t> merged = shape;
      if (rule != Merge::kEqual) merged[dimension] *= size;
      shapes_[name] = merged;
    }
    return absl::OkStatus();
  }

  const std::string& path() const override { return path_; }
  const Shapes& shapes() const override { return shapes_; }
  nlohmann::ordered_json facts() const override { return ranks_[0]->facts(); }
  std::vector<std::string> notes() const override { return ranks_[0]->notes(); }  // the others say the same

  absl::StatusOr<at::Tensor> Read(const std::string& name) const override {
    if (!Has(name)) return absl::NotFoundError(StrCat(path_, " has no tensor '", name, "'"));
    const Merge rule = RuleFor(name, gated_);
    if (rule == Merge::kEqual) return ReadEqual(name);
    // Filled one rank after the other: only one part is held beside it.
    at::Tensor merged = at::empty(shapes_.find(name)->second, at::kFloat);
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      RETRO_ASSIGN_OR_RETURN(const at::Tensor part, ranks_[rank]->Read(name));
      Place(rule, static_cast<int64_t>(rank), part, merged);
    }
    return merged;
  }

 private:
  absl::StatusOr<at::Tensor> ReadEqual(const std::string& name) const {
    RETRO_ASSIGN_OR_RETURN(at::Tensor first, ranks_[0]->Read(name));
    for (size_t rank = 1; rank < ranks_.size(); ++rank) {
      RETRO_ASSIGN_OR_RETURN(const at::Tensor part, ranks_[rank]->Read(name));
      if (!at::equal(part, first)) {
        return absl::InvalidArgumentError(StrCat(path_, ": tensor '", name, "' should be the same on all ranks"));
      }
    }
    return first;
  }

  void Place(Merge rule, int64_t rank, const at::Tensor& part, at::Tensor& merged) const {
    const int64_t dimension = rule == Merge::kColumns ? 1 : 0;
    const int64_t pieces = rule == Merge::kHalves ? 2 : 1;  // all ranks' first halves, then all their second ones
    const auto ranks = static_cast<int64_t>(ranks_.size());
    const int64_t size = part.size(dimension) / pieces;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      merged.narrow(dimension, (piece * ranks + rank) * size, size).copy_(part.narrow(dimension, piece * size, size));
    }
  }

  std::string path_;
  std::vector<std::unique_ptr<TorchArchive>> ranks_;
  bool gated_;
  Shapes shapes_;
};

// The folder of the newest iteration.
absl::StatusOr<fs::path> IterationFolder(const std::string& directory) {
  RETRO_ASSIGN_OR_RETURN(std::string name,
                         ReadFile((fs::path(directory) / "latest_checkpointed_iteration.txt").string()));
  name = std::string(absl::StripAsciiWhitespace(name));
  if (name == "release") return fs::path(directory) / name;
  int64_t number = 0;
  if (!absl::SimpleAtoi(name, &number) || number < 0) {
    return absl::InvalidArgumentError(
        StrCat(directory, ": latest_checkpointed_iteration.txt says '", name, "', neither release nor a number"));
  }
  return fs::path(directory) / StrCat("iter_", absl::Dec(number, absl::kZeroPad7));
}

// The ranks' files in order.
absl::StatusOr<std::vector<std::string>> RankFiles(const fs::path& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("mp_rank_")) names.insert(name);
  }
  if (error) return ErrnoStatus(error.value(), "cannot list", folder.string());
  std::vector<std::string> files;
  for (const std::string& name : names) {
    if (name != StrCat("mp_rank_", absl::Dec(files.size(), absl::kZeroPad2))) {
      return absl::InvalidArgumentError(
          StrCat(folder.string(), ": '", name, "' where rank ", files.size(),
                 " should be; ranks are mp_rank_00, mp_rank_01, ... and pipeline-parallel ones are not read"));
    }
    files.push_back((folder / name / "model_optim_rng.pt").string());
  }
  if (files.empty() || files.size() > kRanksMax) {
    return absl::InvalidArgumentError(
        StrCat(folder.string(), " has ", files.size(), " folders mp_rank_TT, needs 1 to ", kRanksMax));
  }
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensorParallel(const std::string& directory, bool gated) {
  RETRO_ASSIGN_OR_RETURN(const fs::path folder, IterationFolder(directory));
  RETRO_ASSIGN_OR_RETURN(const std::vector<std::string> files, RankFiles(folder));
  std::vector<std::unique_ptr<TorchArchive>> ranks;
  for (const std::string& file : files) {
    RETRO_ASSIGN_OR_RETURN(ranks.emplace_back(), TorchArchive::Open(file));
  }
  const nlohmann::ordered_json facts = ranks[0]->facts();
  if (const auto args = facts.find("args"); args != facts.end() && args->is_object()) {
    const auto swiglu = args->find("swiglu");
    if (swiglu != args->end() && swiglu->is_boolean()) gated = swiglu->get<bool>();
    const auto parallel = args->find("tensor_model_parallel_size");
    if (parallel != args->end() && *parallel != ranks.size()) {
      return absl::InvalidArgumentError(
          StrCat(folder.string(), " has ", ranks.size(), " ranks, its training had ", parallel->dump()));
    }
  }
  auto merged = std::make_unique<TensorParallel>(directory, std::move(ranks), gated);
  RETRO_RETURN_IF_ERROR(merged->CheckRanks());
  return merged;
}

}  // namespace retro
