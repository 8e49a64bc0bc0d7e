#include "builder/command.h"

#include <chrono>
#include <optional>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "fmt/format.h"
#include "retriever_service/index_flags.h"

namespace retro {
namespace {

constexpr int kChunkSizeMin = 4;  // see CutIntoChunks
constexpr int kChunkSizeMax = 4096;

absl::Status Conclude(uint64_t left_out, const std::string& out) {
  if (left_out == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      StrCat(out, " is built, without ", left_out, " documents that could not be read or written"));
}

// Of this run: a build that goes on has its speed from then on.
class RunProgress {
 public:
  explicit RunProgress(const std::string& out) : out_(out) {}

  void Show(size_t documents, double share) {
    documents_ += documents;
    if (documents_ == documents) share_at_start_ = share;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const double speed = (share - share_at_start_) / seconds;  // 0 after the first group
    ShowProgress(fmt::format("{}: {:.1f} %, {:.0f} documents/s{}", out_, 100 * share,
                             static_cast<double>(documents_) / seconds,
                             speed > 0 ? fmt::format(", {:.0f} min left", (1 - share) / speed / 60) : ""));
  }

 private:
  const std::string& out_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  uint64_t documents_ = 0;
  double share_at_start_ = 0;
};

}  // namespace

void AddTargetFlags(CLI::App& app, TargetOptions& options) {
  app.add_option("--out", options.out, "The shard's data folder, which is made; OUT.unfinished until it is whole")
      ->required();
  app.add_option("--cluster-file", options.cluster_file,
                 "The cluster file (docs/consistency.md) of the cluster that will serve it, in which nothing runs yet; "
                 "without one, a standalone store is made");
  app.add_option("--shard", options.shard, "The shard's number in the cluster file, from 0")->capture_default_str();
  AddIndexFlags(app, options.index);
}

void AddContentFlags(CLI::App& app, ContentOptions& options) {
  app.add_option("--tokenizer", options.tokenizer, "SentencePiece model that cuts documents into chunks")->required();
  app.add_option("--chunk-size", options.chunk_size, "Tokens a chunk")
      ->check(CLI::Range(kChunkSizeMin, kChunkSizeMax))
      ->capture_default_str();
  AddEmbedderFlags(app, options.embedder);
}

void AddStoresArgument(CLI::App& app, std::vector<std::string>& folders) {
  app.add_option("stores", folders,
                 "Every shard of a store, each once: its data folder while nobody serves it, or its snapshot")
      ->type_name("STORE")
      ->required();
}

absl::Status RunBuild(ShardBuild& build, DocumentSource& source, ContentMaker* content, const std::string& out) {
  if (build.complete()) return Conclude(build.left_out(), out);
  source.GoOnAt(build.place());
  RunProgress progress(out);
  while (true) {
    RETRO_ASSIGN_OR_RETURN(std::optional<DocumentGroup> group, source.Next());
    if (!group.has_value()) break;
    const size_t documents = group->changes.size();
    if (content != nullptr) RETRO_RETURN_IF_ERROR(content->Fill(group->changes));
    RETRO_RETURN_IF_ERROR(build.Write(*std::move(group)));
    progress.Show(documents, source.share_read());
  }
  RETRO_RETURN_IF_ERROR(build.Finish());
  return Conclude(build.left_out(), out);
}

}  // namespace retro
