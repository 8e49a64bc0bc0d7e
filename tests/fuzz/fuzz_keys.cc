// What the edge of a server reads before it knows who calls: the file of API keys, the header of a trace.
#include "common/rpc/api_keys.h"
#include "common/rpc/trace.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"keys":[{"name":"a","sha256":"0000000000000000000000000000000000000000000000000000000000000000","role":"read",)"
      R"("collections":["","x"],"requests_per_second_max":1.5,"streams_max":3,"tokens_max":9}]})",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"};
}

void FuzzOne(std::string_view input) {
  const auto keys = ParseApiKeys(input);
  if (keys.ok()) Require(FindApiKey(*keys, input) == nullptr, "a file is no key");
  const Trace trace = ContinueTrace(input);
  Require(ContinueTrace(trace.Header()).parent_id == trace.span_id, "a header of ours is none");
}

}  // namespace retro
