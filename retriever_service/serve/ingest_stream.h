// One Ingest stream: documents in, acknowledgements out, a bounded number of them between.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "common/base/call_context.h"
#include "retriever_service/serve/retriever_service.h"
#include "retro/retriever/v1/retriever.pb.h"

namespace retro {

// Documents of one stream that may be between reading and acknowledgement.
inline constexpr int kIngestWindow = 64;

// Messages are bytes here and parsed by the stream itself: gRPC would take one that does not parse, as for text that is
// not UTF-8, for the end of the stream, and the documents after it would be lost in silence.
using IngestReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

// The reactor of a new stream; deletes itself when the stream is over.
IngestReactor* StartIngestStream(const RetrieverParts& parts, grpc::CallbackServerContext* context);

}  // namespace retro
