#include "retriever_service/embed/bert_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"

namespace retro {
namespace {

using Shape = std::vector<int64_t>;

// fp16 has a narrower exponent: its bits, moved to fp32's places, are the number times 2^-112, subnormal ones included.
float FromHalf(uint16_t bits) {
  constexpr uint32_t kHalfExponent = 0x7c00;
  constexpr uint32_t kFloatExponent = 0x7f800000;
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t moved = static_cast<uint32_t>(bits & 0x7fff) << 13;
  if ((bits & kHalfExponent) == kHalfExponent) return std::bit_cast<float>(kFloatExponent | moved);  // infinite or NaN
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(moved) * 0x1p112f));
}

float FromBfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

template <typename Convert>
void ConvertHalves(std::string_view bytes, std::vector<float>& values, Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + i * sizeof(bits), sizeof(bits));
    values[i] = convert(bits);
  }
}

class WeightReader {
 public:
  explicit WeightReader(const SafetensorsFile& file) : file_(file) {
    if (file.tensors().contains("bert.embeddings.word_embeddings.weight")) prefix_ = "bert.";
  }

  absl::Status Read(const std::string& name, const Shape& shape, std::vector<float>& values) const {
    const std::string full_name = prefix_ + name;
    auto found = file_.Find(full_name);
    if (!found.ok()) {
      return absl::InvalidArgumentError(
          StrCat(MessageOf(found.status()), ", which config.json asks for: take both from the same model"));
    }
    if (found->shape != shape) {
      return Fault(full_name, StrCat("has shape ", ShapeString(found->shape), ", config.json asks for ",
                                     ShapeString(shape), ": take both from the same model"));
    }
    values.resize(found->element_count());
    switch (found->dtype) {
      case DType::kF32:
        std::memcpy(values.data(), found->bytes.data(), found->bytes.size());
        break;
      case DType::kF16:
        ConvertHalves(found->bytes, values, FromHalf);
        break;
      case DType::kBf16:
        ConvertHalves(found->bytes, values, FromBfloat16);
        break;
      default:
        return Fault(full_name, StrCat("has type ", DTypeName(found->dtype), "; F32, F16 and BF16 are taken"));
    }
    if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
      return Fault(full_name, "holds a value that is not a finite number");
    }
    return absl::OkStatus();
  }

  absl::Status Linear(const std::string& name, int64_t outputs, int64_t inputs, LinearWeights& linear) const {
    RETRO_RETURN_IF_ERROR(Read(name + ".weight", {outputs, inputs}, linear.weight));
    return Read(name + ".bias", {outputs}, linear.bias);
  }

  // Checkpoints converted from TensorFlow say gamma and beta.
  absl::Status Norm(const std::string& name, int64_t size, NormWeights& norm) const {
    const bool gamma = file_.tensors().contains(prefix_ + name + ".gamma");
    RETRO_RETURN_IF_ERROR(Read(name + (gamma ? ".gamma" : ".weight"), {size}, norm.gamma));
    return Read(name + (gamma ? ".beta" : ".bias"), {size}, norm.beta);
  }

 private:
  absl::Status Fault(const std::string& name, std::string_view what) const {
    return absl::InvalidArgumentError(StrCat(file_.path(), ": tensor '", name, "' ", what));
  }

  const SafetensorsFile& file_;
  std::string prefix_;
};

absl::Status ReadLayer(const WeightReader& reader, const std::string& name, const BertConfig& config,
                       BertLayerWeights& layer) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  RETRO_RETURN_IF_ERROR(reader.Linear(name + "attention.self.query", hidden, hidden, layer.query));
  RETRO_RETURN_IF_ERROR(reader.Linear(name + "attention.self.key", hidden, hidden, layer.key));
  RETRO_RETURN_IF_ERROR(reader.Linear(name + "attention.self.value", hidden, hidden, layer.value));
  RETRO_RETURN_IF_ERROR(reader.Linear(name + "attention.output.dense", hidden, hidden, layer.attention_output));
  RETRO_RETURN_IF_ERROR(reader.Norm(name + "attention.output.LayerNorm", hidden, layer.attention_norm));
  RETRO_RETURN_IF_ERROR(reader.Linear(name + "intermediate.dense", intermediate, hidden, layer.intermediate));
  RETRO_RETURN_IF_ERROR(reader.Linear(name + "output.dense", hidden, intermediate, layer.output));
  return reader.Norm(name + "output.LayerNorm", hidden, layer.output_norm);
}

}  // namespace

absl::StatusOr<BertWeights> ReadBertWeights(const BertConfig& config) {
  RETRO_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(config.weights_path()));
  const WeightReader reader(file);
  const int64_t hidden = config.hidden_size;
  BertWeights weights;
  const std::string name = "embeddings.";
  RETRO_RETURN_IF_ERROR(reader.Read(name + "word_embeddings.weight", {config.vocabulary_size, hidden}, weights.words));
  RETRO_RETURN_IF_ERROR(
      reader.Read(name + "position_embeddings.weight", {config.max_positions, hidden}, weights.positions));
  RETRO_RETURN_IF_ERROR(
      reader.Read(name + "token_type_embeddings.weight", {config.token_types, hidden}, weights.types));
  RETRO_RETURN_IF_ERROR(reader.Norm(name + "LayerNorm", hidden, weights.norm));
  for (int i = 0; i < config.layers; ++i) {
    RETRO_RETURN_IF_ERROR(ReadLayer(reader, StrCat("encoder.layer.", i, "."), config, weights.layers.emplace_back()));
  }
  return weights;
}

}  // namespace retro
