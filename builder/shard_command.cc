// retro-build shard: documents to the store and index of one shard.
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "builder/command.h"
#include "builder/file_documents.h"
#include "cli/reading_options.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

using google::protobuf::util::TimeUtil;

struct Options {
  TargetOptions target;
  ContentOptions content;
  std::vector<std::string> paths;
  cli::ReadingOptions reading;
  std::string collection;
  std::string write_time;
};

absl::StatusOr<std::vector<cli::InputFile>> FindFiles(const Options& options) {
  cli::WalkResult walked = cli::WalkFiles(options.paths, options.reading.walk);
  if (!walked.problems.empty()) return walked.problems[0];
  if (walked.files.empty()) return FieldError("paths", "there is no file of a known kind: see --help");
  return std::move(walked.files);
}

// A function of the input, so that builds of the same are equal.
absl::StatusOr<google::protobuf::Timestamp> WriteTime(const Options& options,
                                                      const std::vector<cli::InputFile>& files) {
  google::protobuf::Timestamp time;
  if (!options.write_time.empty()) {
    if (TimeUtil::FromString(options.write_time, &time)) return time;
    return FieldError("--write-time", "give a time as 2024-05-01T12:00:00Z");
  }
  int64_t newest = 0;
  for (const cli::InputFile& file : files) newest = std::max(newest, file.modified_ns);
  return TimeUtil::NanosecondsToTimestamp(newest);
}

// All that decides what is written.
std::string InputFingerprint(const Options& options, const FileDocumentsOptions& documents,
                             const pb::CollectionSpec& spec) {
  Sha256 hash;
  hash.UpdateField("shard");
  hash.UpdateField(spec.name());
  hash.UpdateField(spec.tokenizer_fingerprint());
  hash.UpdateField(spec.embedder_fingerprint());
  hash.UpdateField(StrCat(spec.chunk_size(), " ", options.reading.part_bytes, " ", options.reading.reader.repair, " ",
                          TimeUtil::ToString(documents.write_time)));
  hash.UpdateField(options.reading.reader.encoding);
  for (const std::string& one : options.reading.metadata) hash.UpdateField(one);
  for (const cli::InputFile& file : documents.files) {
    hash.UpdateField(file.path);
    hash.UpdateField(StrCat(file.size_bytes));
  }
  return hash.Finish();
}

absl::Status Run(Options& options) {
  RETRO_RETURN_IF_ERROR(options.reading.Finish());
  RETRO_ASSIGN_OR_RETURN(const TargetIdentity identity, ReadTargetIdentity(options.target));
  FileDocumentsOptions documents;
  documents.collection = options.collection;
  documents.reader = options.reading.reader;
  documents.is_wanted = [&identity](const std::string& id) { return identity.Holds(id); };
  RETRO_ASSIGN_OR_RETURN(documents.files, FindFiles(options));
  RETRO_ASSIGN_OR_RETURN(documents.write_time, WriteTime(options, documents.files));
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<ContentMaker> content, ContentMaker::Load(options.content));
  const pb::CollectionSpec spec = content->Spec(options.collection);
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<ShardBuild> build,
                         ShardBuild::Open(options.target, identity, InputFingerprint(options, documents, spec)));
  if (!build->complete()) RETRO_RETURN_IF_ERROR(build->CreateCollection(spec));
  FileDocuments source(std::move(documents));
  return RunBuild(*build, source, content.get(), options.target.out);
}

constexpr char kFooter[] = R"(
Files are read, and documents named, as `retro ingest` does: see its --help. One process builds one shard; those of the
others may run beside it, on the same files. A build that was killed goes on where it was when the same command is given
again. Builds of the same files are equal (`retro admin verify`). A document that cannot be read is reported and left
out; the exit code is then 1.)";

}  // namespace

TrainCommand AddShardCommand(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = program.add_subcommand("shard", "Documents to the store and index of one shard; goes on if killed");
  app->footer(kFooter);
  app->add_option("paths", options->paths, "Files and folders of documents")->type_name("PATH")->required();
  AddTargetFlags(*app, options->target);
  AddContentFlags(*app, options->content);
  app->add_option("--collection", options->collection, "Collection; without it, the default one");
  app->add_option("--write-time", options->write_time,
                  "When the documents are said to have been written, as 2024-05-01T12:00:00Z; without it, when the "
                  "newest of the files was changed");
  cli::AddReadingOptions(*app, options->reading);
  return {app, [options] { return Run(*options); }};
}

}  // namespace retro
