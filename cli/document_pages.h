// Every document of a collection, without its text, fetched a page at a time.
#pragma once

#include <grpcpp/support/status.h>

#include <optional>

#include "cli/common_options.h"
#include "cli/protocol.h"

namespace retro::cli {

// Not thread-safe.
class DocumentPages {
 public:
  // `stub` and `options` must outlive it. `filter` may be unset.
  DocumentPages(pb::RetrieverService::Stub& stub, const CommonOptions& options,
                const std::optional<pb::Filter>& filter);

  // The next document, or null at the end and after an error; valid until the next call.
  const pb::DocumentSummary* Next();
  // What ended it.
  const grpc::Status& status() const { return status_; }

 private:
  pb::RetrieverService::Stub& stub_;
  const CommonOptions& options_;
  pb::ListDocumentsRequest request_;
  pb::ListDocumentsResponse page_;
  int at_ = 0;
  bool last_page_ = false;
  grpc::Status status_;
};

}  // namespace retro::cli
