// One Ingest stream: documents in, acknowledgements out, a bounded number of them between.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "common/base/call_context.h"
#include "retriever_service/serve/retriever_service.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// Documents of one stream that may be between reading and acknowledgement.
inline constexpr int kIngestWindow = 64;

// The reactor of a new stream; deletes itself when the stream is over.
grpc::ServerBidiReactor<pb::IngestRequest, pb::IngestResponse>* StartIngestStream(const RetrieverParts& parts,
                                                                                  grpc::CallbackServerContext* context);

}  // namespace retro
