#include "tests/paper_reference.h"

#include <cstdlib>
#include <iostream>

#include "generator_service/checkpoints/foreign_format.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

template <typename T>
T ValueOrDie(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::cerr << result.status() << std::endl;
    std::abort();
  }
  return *std::move(result);
}

std::vector<TokenId> Ids(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.flatten().to(at::kInt).contiguous();
  const TokenId* begin = flat.const_data_ptr<TokenId>();
  return {begin, begin + flat.numel()};
}

}  // namespace

std::vector<std::string> PaperReferenceNames() {
  return {"paper_tiny",         "paper_tiny_mask",        "paper_tiny_offset", "paper_m64",
          "paper_tiny_variant", "paper_tiny_shared_relu", "paper_tiny_ragged", "paper_tiny_mask_offset_share"};
}

absl::StatusOr<ForeignModel> OpenGolden(const std::string& format, const std::string& stem) {
  return ForeignModel::Open(**FindForeignFormat(format), stem + ".json", stem + ".weights.safetensors");
}

PaperReference LoadPaperReference(const std::string& name, int64_t context) {
  const std::string stem = SourcePath("tests/goldens/paper/" + name);
  PaperReference reference;
  reference.name = name;
  const ForeignModel imported = ValueOrDie(OpenGolden("paper", stem));
  reference.config = imported.config();
  if (context > 0) reference.config.max_length = context;
  reference.weights = ValueOrDie(imported.ReadAll());
  reference.offset = reference.config.offset;
  reference.model = ValueOrDie(RetroModel::Create(reference.config, reference.weights, TestDevice()));
  const SafetensorsFile io = ValueOrDie(SafetensorsFile::Open(stem + ".io.safetensors"));
  reference.tokens = Ids(ValueOrDie(ReadReference(io, "tokens")));
  const at::Tensor neighbours = ValueOrDie(ReadReference(io, "neighbours"));
  for (int64_t u = 0; u < neighbours.size(0); ++u)
    reference.neighbours.push_back({neighbours.size(1), Ids(neighbours[u])});
  reference.logits = ValueOrDie(ReadReference(io, "logits_f64"));
  reference.logits_off = ValueOrDie(ReadReference(io, "logits_off_f64"));
  reference.conditioning = ValueOrDie(ReadReference(io, "cond_H_f64"));
  reference.encoded = ValueOrDie(ReadReference(io, "E_f64"));
  reference.last = ValueOrDie(ReadReference(io, "H_last_f64"));
  return reference;
}

at::Tensor LoadSlidingReference(const std::string& name, int64_t context) {
  const SafetensorsFile file =
      ValueOrDie(SafetensorsFile::Open(SourcePath("tests/goldens/paper/sliding_window.safetensors")));
  return ValueOrDie(ReadReference(file, name + "." + std::to_string(context)));
}

}  // namespace retro
