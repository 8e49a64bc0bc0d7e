// The documents that tests of a cluster of processes write, each with a text of its own.
#pragma once

#include <grpcpp/client_context.h>

#include <chrono>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"

namespace retro {

inline void SetDeadline(grpc::ClientContext& context, std::chrono::milliseconds time) {
  context.set_deadline(std::chrono::system_clock::now() + time);
}

inline std::string TextOf(int document) { return StrCat("document number ", document, " of the test"); }

// Documents `begin` to `end` with a title; OK if all of them are acknowledged.
inline absl::Status WriteDocuments(retriever::v1::RetrieverService::Stub& stub, int begin, int end,
                                   const std::string& title) {
  retriever::v1::UpsertDocumentsRequest request;
  for (int n = begin; n < end; ++n) {
    retriever::v1::Document& document = *request.add_writes()->mutable_document();
    document.set_id(StrCat("d", n));
    document.set_title(title);
    document.set_text(TextOf(n));
  }
  grpc::ClientContext context;
  SetDeadline(context, std::chrono::milliseconds(30'000));
  retriever::v1::UpsertDocumentsResponse response;
  const grpc::Status status = stub.UpsertDocuments(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  for (const auto& result : response.results()) {
    if (result.has_error()) return absl::UnknownError(StrCat(result.document_id(), ": ", result.error().message()));
  }
  return absl::OkStatus();
}

// Until it is acknowledged: processes that have just started may be slow to answer each other.
inline absl::Status WriteSurely(retriever::v1::RetrieverService::Stub& stub, int begin, int end) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (true) {
    absl::Status status = WriteDocuments(stub, begin, end, "");
    if (status.ok() || std::chrono::steady_clock::now() > give_up) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace retro
