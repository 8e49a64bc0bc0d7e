#include "generator_service/checkpoints/foreign_format.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>
#include <ios>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/foreign_formats.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/checkpoints/tensor_parallel.h"
#include "generator_service/checkpoints/torch_archive.h"

namespace retro {
namespace {

constexpr std::string_view kZipMagic = "PK\003\004";  // a safetensors file that began so would have a header of 64 MB

absl::Status Bad(const TensorSource& source, const std::string& tensor, std::string_view why) {
  return absl::InvalidArgumentError(StrCat(source.path(), ": tensor '", tensor, "' ", why));
}

std::string FirstDifference(const ModelConfig& a, const ModelConfig& b) {
  const nlohmann::ordered_json one = nlohmann::ordered_json::parse(ModelConfigToJson(a));
  const nlohmann::ordered_json other = nlohmann::ordered_json::parse(ModelConfigToJson(b));
  for (const auto& [key, value] : one.items()) {
    if (value != other[key]) return StrCat(key, " is ", value.dump(), ", the format's is ", other[key].dump());
  }
  return "";
}

// By what lies at the path.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenWeights(const std::string& path,
                                                          const nlohmann::ordered_json& config) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    const auto gated = config.find("swiglu");
    return OpenTensorParallel(path, gated == config.end() || *gated != false);
  }
  std::string magic(kZipMagic.size(), '\0');
  std::ifstream(path, std::ios::binary).read(magic.data(), static_cast<std::streamsize>(magic.size()));
  if (magic == kZipMagic) return TorchArchive::Open(path);
  return SafetensorsSource::Open(path);
}

// The tensors of an export, as a source that knows only their shapes.
class ShapesOnly : public TensorSource {
 public:
  explicit ShapesOnly(Shapes shapes) : shapes_(std::move(shapes)) {}
  const std::string& path() const override { return path_; }
  const Shapes& shapes() const override { return shapes_; }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override { return absl::NotFoundError(name); }

 private:
  std::string path_ = "export";
  Shapes shapes_;
};

}  // namespace

const std::vector<ForeignFormat>& ForeignFormats() {
  static const auto* formats = new std::vector<ForeignFormat>{PaperFormat(), NorlundFormat(), MegatronFormat(),
                                                              InstructRetroFormat(), LucidrainsFormat()};
  return *formats;
}

absl::StatusOr<const ForeignFormat*> FindForeignFormat(const std::string& name) {
  std::vector<std::string> names;
  for (const ForeignFormat& format : ForeignFormats()) {
    if (format.name == name) return &format;
    names.emplace_back(format.name);
  }
  return absl::InvalidArgumentError(StrCat("no format '", name, "': there are ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<ForeignModel> ForeignModel::Open(const ForeignFormat& format, const std::string& config_path,
                                                const std::string& weights_path) {
  RETRO_ASSIGN_OR_RETURN(const nlohmann::ordered_json config, ReadConfigFile(config_path));
  ForeignModel model;
  RETRO_ASSIGN_OR_RETURN(model.source_, OpenWeights(weights_path, config));
  model.notes_ = model.source_->notes();
  absl::StatusOr<ForeignReading> reading = format.read(config, *model.source_);
  if (!reading.ok())
    return absl::Status(reading.status().code(), StrCat(config_path, ": ", MessageOf(reading.status())));
  model.reading_ = *std::move(reading);
  const absl::Status valid = ValidateModelConfig(model.reading_.config);
  if (!valid.ok()) return absl::InvalidArgumentError(StrCat(config_path, ": ", MessageOf(valid)));
  if (const int64_t k = model.trained_neighbours(); k < 1 || k > kTrainedNeighboursMax) {
    return absl::InvalidArgumentError(
        StrCat(config_path, ": ", k, " neighbours a chunk, must be from 1 to ", kTrainedNeighboursMax));
  }
  for (const std::string& key : model.reading_.unused_keys) {
    model.notes_.push_back(StrCat(config_path, ": key '", key, "' was not used"));
  }
  for (const std::string& note : model.reading_.notes) model.notes_.push_back(StrCat(config_path, ": ", note));
  RETRO_RETURN_IF_ERROR(model.CheckTensors());
  RETRO_RETURN_IF_ERROR(CatchTorch([&] { return model.CheckCopies(); }));
  return model;
}

absl::Status ForeignModel::CheckTensors() {
  std::set<std::string> used;
  for (const WeightSpec& spec : WeightTable(reading_.config)) {
    RETRO_ASSIGN_OR_RETURN(const ForeignWeight place, reading_.place(spec));
    const auto found = source_->shapes().find(place.name);
    if (found == source_->shapes().end()) {
      return absl::NotFoundError(
          StrCat(source_->path(), " has no tensor '", place.name, "', which the config asks for (", spec.name, ")"));
    }
    const std::vector<int64_t> expected = ForeignShape(spec, place);
    if (found->second != expected) {
      return Bad(*source_, place.name,
                 StrCat("has shape ", ShapeString(found->second), ", the config asks for ", ShapeString(expected)));
    }
    used.insert(place.name);
  }
  std::map<std::string, std::vector<std::string>> dropped;  // by the reason
  for (const auto& [name, shape] : source_->shapes()) {
    if (used.contains(name)) continue;
    if (const auto known = reading_.dropped.find(name); known != reading_.dropped.end()) {
      dropped[known->second].push_back(name);
    } else if (reading_.copies.contains(name)) {
      dropped["a second copy of another tensor"].push_back(name);
    } else {
      return Bad(*source_, name, "is not part of the model of this config");
    }
  }
  for (const auto& [why, names] : dropped) notes_.push_back(DroppedNote(source_->path(), names, why));
  return absl::OkStatus();
}

absl::Status ForeignModel::CheckCopies() const {
  for (const auto& [name, original] : reading_.copies) {
    RETRO_ASSIGN_OR_RETURN(const at::Tensor copy, source_->Read(name));
    RETRO_ASSIGN_OR_RETURN(const at::Tensor first, source_->Read(original));
    if (!at::equal(copy, first)) return Bad(*source_, name, StrCat("differs from its other copy '", original, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> ForeignModel::Read(const WeightSpec& spec) const {
  return CatchTorch([&]() -> absl::StatusOr<at::Tensor> {
    RETRO_ASSIGN_OR_RETURN(const ForeignWeight place, reading_.place(spec));
    RETRO_ASSIGN_OR_RETURN(at::Tensor foreign, source_->Read(place.name));
    at::Tensor weight = TakePart(foreign, spec, place);
    foreign.reset();
    const absl::Status finite = CheckFinite(weight);
    if (!finite.ok()) return Bad(*source_, place.name, MessageOf(finite));
    return weight;
  });
}

absl::StatusOr<std::map<std::string, at::Tensor>> ForeignModel::ReadAll() const {
  std::map<std::string, at::Tensor> weights;
  for (const WeightSpec& spec : WeightTable(config())) {
    RETRO_ASSIGN_OR_RETURN(weights[spec.name], Read(spec));
  }
  return weights;
}

absl::StatusOr<ExportedModel> ExportModel(const ForeignFormat& format, const ModelConfig& config,
                                          const std::map<std::string, at::Tensor>& weights) {
  if (format.write_config == nullptr) {
    return absl::InvalidArgumentError(StrCat("there is no exporter to ", format.name));
  }
  ExportedModel exported;
  exported.config = format.write_config(config);
  const ShapesOnly nothing({});
  absl::StatusOr<ForeignReading> reading = format.read(exported.config, nothing);
  if (!reading.ok() || reading->config != config) {
    return absl::FailedPreconditionError(
        StrCat("the model is not of ", format.name, "'s form: ",
               reading.ok() ? FirstDifference(config, reading->config) : std::string(MessageOf(reading.status()))));
  }
  return CatchTorch([&]() -> absl::StatusOr<ExportedModel> {
    RETRO_ASSIGN_OR_RETURN(exported.weights, ForeignTensors(WeightTable(config), weights, reading->place));
    return exported;
  });
}

}  // namespace retro
