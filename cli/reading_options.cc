#include "cli/reading_options.h"

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "CLI/Validators.hpp"
#include "cli/common_options.h"
#include "cli/document_json.h"
#include "common/base/status_macros.h"

namespace retro::cli {

absl::Status ReadingOptions::Finish() {
  for (const std::string& one : metadata) RETRO_RETURN_IF_ERROR(AddMetadata(one, &reader.metadata));
  if (part_bytes > 0) reader.part_bytes = part_bytes;
  return absl::OkStatus();
}

void AddReadingOptions(CLI::App& command, ReadingOptions& options) {
  command.add_option("--metadata", options.metadata, "For every document that lacks the key: key=text or key:=JSON")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command.add_option("--include", options.walk.include, "In folders, only files that match, as '*.md'; repeatable")
      ->type_name("GLOB")
      ->allow_extra_args(false);
  command.add_option("--exclude", options.walk.exclude, "In folders, no files that match; repeatable")
      ->type_name("GLOB")
      ->allow_extra_args(false);
  command
      .add_option("--part-bytes", options.part_bytes,
                  "Cut longer texts at paragraphs into parts (default 1 MiB for files, 8 MiB for JSONL)")
      ->type_name("N")
      ->check(CLI::Range(kPartBytesMin, kDocumentBytesMax));
  AddEncodingOptions(command, options.reader.encoding, options.reader.repair);
}

}  // namespace retro::cli
