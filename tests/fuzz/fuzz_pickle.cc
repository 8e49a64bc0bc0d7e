// Any bytes as the pickle of a PyTorch archive: they are refused, or every value can be walked.
#include <unordered_set>

#include "generator_service/checkpoints/pickle.h"
#include "tests/fuzz/fuzz.h"

namespace retro {

std::vector<std::string> FuzzSeeds() {
  using std::string_literals::operator""s;  // bytes that are 0
  return {"\x80\x02}q\0(X\x01\0\0\0aq\x01K\x01X\x01\0\0\0b](K\x02G?\xf0\0\0\0\0\0\0\x88Neu."s,
          "\x80\x02"
          "ctorch._utils\n_rebuild_tensor_v2\nq\0((X\x07\0\0\0storageq\x01"
          "ctorch\nFloatStorage\nq\x02X\x01\0\0\0"
          "0tQ"
          "K\0K\x02\x85K\x01\x85\x89"
          "ccollections\nOrderedDict\nq\x03)RtR."s};
}

void FuzzOne(std::string_view input) {
  const auto pickle = Pickle::Read(input);
  if (!pickle.ok())
    return Require(pickle.status().code() == absl::StatusCode::kInvalidArgument, "refused with another status");
  std::unordered_set<const PickleValue*> seen;
  std::vector<const PickleValue*> waiting = {&pickle->root()};
  size_t bytes = 0;
  while (!waiting.empty()) {
    const PickleValue* value = waiting.back();
    waiting.pop_back();
    if (value == nullptr || !seen.insert(value).second) continue;
    bytes = std::max(bytes, value->text.size());
    waiting.insert(waiting.end(), {value->callable, value->arguments, value->state});
    waiting.insert(waiting.end(), value->items.begin(), value->items.end());
    for (const auto& [key, entry] : value->entries) waiting.insert(waiting.end(), {key, entry});
  }
  Require(bytes <= input.size(), "a text that the pickle does not have");
}

}  // namespace retro
