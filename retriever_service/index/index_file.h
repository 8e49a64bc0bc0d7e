// The files of sealed segments, compared with what the manifest says of them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/base/file.h"
#include "common/document/protos.h"
#include "retro/shard/v1/index.pb.h"

namespace retro {

// What a file is now. DATA_LOSS if some of it cannot be read.
absl::StatusOr<shardpb::IndexFile> DescribeFile(const std::string& path);

// DATA_LOSS if it is not as `file` says.
absl::StatusOr<MappedFile> MapWhole(const std::string& path, const shardpb::IndexFile& file);

}  // namespace retro
