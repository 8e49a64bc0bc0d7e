// What the edge of a server reads before it knows who calls: the file of API keys, the headers that it sends on.
#include <grpc/grpc.h>
#include <grpc/slice.h>

#include "common/rpc/api_keys.h"
#include "common/rpc/header.h"
#include "common/rpc/trace.h"
#include "tests/fuzz/fuzz.h"

namespace retro {
namespace {

// What gRPC says, which ends the process over what may not.
bool MayBeSent(std::string_view value) {
  return grpc_header_nonbin_value_is_legal(grpc_slice_from_static_buffer(value.data(), value.size())) != 0;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"keys":[{"name":"a","sha256":"0000000000000000000000000000000000000000000000000000000000000000","role":"read",)"
      R"("collections":["","x"],"requests_per_second_max":1.5,"streams_max":3,"tokens_max":9}]})",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"};
}

void FuzzOne(std::string_view input) {
  const auto keys = ParseApiKeys(input);
  if (keys.ok()) Require(FindApiKey(*keys, input) == nullptr, "a file is no key");
  Require(!IsRequestId(input) || MayBeSent(input), "a request id would end the process");
  const Trace trace = ContinueTrace(input);
  Require(MayBeSent(trace.Header()), "a trace would end the process");
  Require(ContinueTrace(trace.Header()).parent_id == trace.span_id, "a header of ours is none");
}

}  // namespace retro
