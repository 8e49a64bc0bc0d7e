// A status as the error of one item of a call, and back.
#pragma once

#include "absl/status/status.h"
#include "common/document/protos.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

pb::ItemError ToItemError(const absl::Status& status);
absl::Status FromItemError(const pb::ItemError& error);

}  // namespace retro
