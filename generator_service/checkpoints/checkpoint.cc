#include "generator_service/checkpoints/checkpoint.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/torch_status.h"
#include "generator_service/checkpoints/tensor_io.h"
#include "generator_service/model/weight_table.h"
#include "generator_service/model/weights.h"
#include "nlohmann/json.hpp"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "retro-model";
constexpr int64_t kFormatVersion = 1;
constexpr char kTrainedNeighboursKey[] = "trained_neighbours";
constexpr char kNext[] = ".next";          // suffix of what takes a file's place: see the header
constexpr size_t kHashedBytes = 1 << 24;   // at a time: a file may be larger than memory
constexpr size_t kCheckedBytes = 1 << 18;  // at a time: they are in the second cache then

std::string PathIn(const std::string& directory, std::string_view name) {
  return (std::filesystem::path(directory) / name).string();
}

std::string NextPathIn(const std::string& directory, std::string_view name) {
  return StrCat(PathIn(directory, name), kNext);
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// A member that is a string if it is there at all.
absl::Status ReadString(const Json& json, const char* key, std::string& value) {
  const auto found = json.find(key);
  if (found == json.end()) return absl::OkStatus();
  if (!found->is_string()) return absl::InvalidArgumentError(StrCat("'", key, "' must be a string"));
  value = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadTrainedNeighbours(const Json& json, int64_t& value) {
  const auto found = json.find(kTrainedNeighboursKey);
  if (found == json.end()) return absl::OkStatus();
  if (!found->is_number_integer() || *found < 1 || *found > kTrainedNeighboursMax) {
    return absl::InvalidArgumentError(
        StrCat("'", kTrainedNeighboursKey, "' must be an integer from 1 to ", kTrainedNeighboursMax));
  }
  value = found->get<int64_t>();
  return absl::OkStatus();
}

absl::Status CheckFormat(const Json& json) {
  if (!json.is_object() || json.value("format", Json()) != kFormat) {
    return absl::InvalidArgumentError("is not the config of a model folder: make one with retro-model init or import");
  }
  const Json version = json.value("format_version", Json());
  if (!version.is_number_integer()) return absl::InvalidArgumentError("'format_version' must be an integer");
  if (version != kFormatVersion) {
    return absl::FailedPreconditionError(
        StrCat("has format version ", version.dump(), ", this program reads ", kFormatVersion, ": update it"));
  }
  static const std::set<std::string> known = {"format",         "format_version",        "model",
                                              "tokenizer_file", "tokenizer_fingerprint", "embedder_fingerprint",
                                              "revision",       kTrainedNeighboursKey};
  for (const auto& [key, value] : json.items()) {
    if (!known.contains(key)) return absl::InvalidArgumentError(StrCat("unknown key '", key, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<CheckpointInfo> ParseInfo(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  RETRO_RETURN_IF_ERROR(CheckFormat(json));
  CheckpointInfo info;
  if (!json.contains("model")) return absl::InvalidArgumentError("'model' is missing");
  RETRO_ASSIGN_OR_RETURN(info.config, ModelConfigFromJson(json["model"].dump()));
  RETRO_RETURN_IF_ERROR(ReadString(json, "tokenizer_file", info.tokenizer_file));
  RETRO_RETURN_IF_ERROR(ReadString(json, "tokenizer_fingerprint", info.tokenizer_fingerprint));
  RETRO_RETURN_IF_ERROR(ReadString(json, "embedder_fingerprint", info.embedder_fingerprint));
  RETRO_RETURN_IF_ERROR(ReadString(json, "revision", info.revision));
  RETRO_RETURN_IF_ERROR(ReadTrainedNeighbours(json, info.trained_neighbours));
  if (std::filesystem::path(info.tokenizer_file).filename() != info.tokenizer_file) {
    return absl::InvalidArgumentError("'tokenizer_file' must be the name of a file in the folder");
  }
  return info;
}

std::string InfoToJson(const CheckpointInfo& info) {
  Json json = {{"format", kFormat}, {"format_version", kFormatVersion}, {"revision", info.revision}};
  if (!info.tokenizer_file.empty()) json["tokenizer_file"] = info.tokenizer_file;
  if (!info.tokenizer_fingerprint.empty()) json["tokenizer_fingerprint"] = info.tokenizer_fingerprint;
  if (!info.embedder_fingerprint.empty()) json["embedder_fingerprint"] = info.embedder_fingerprint;
  // Programs that know no such key still read the usual model.
  if (info.trained_neighbours != kTrainedNeighbours) json[kTrainedNeighboursKey] = info.trained_neighbours;
  json["model"] = Json::parse(ModelConfigToJson(info.config));
  return json.dump(2) + "\n";
}

absl::StatusOr<std::string> FileRevision(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  Sha256 hash;
  for (std::string_view rest = file.bytes(); !rest.empty();) {
    const std::string_view piece = rest.substr(0, kHashedBytes);
    hash.Update(piece);
    file.Forget(piece);
    rest.remove_prefix(piece.size());
  }
  return HexEncode(hash.Finish());
}

absl::Status CheckNoExtra(const SafetensorsFile& file, const std::vector<WeightSpec>& table) {
  if (file.tensors().size() == table.size()) return absl::OkStatus();
  std::set<std::string_view> expected;
  for (const WeightSpec& spec : table) expected.insert(spec.name);
  for (const auto& [name, tensor] : file.tensors()) {
    if (!expected.contains(name)) {
      return absl::InvalidArgumentError(StrCat(file.path(), ": tensor '", name, "' is not part of the model that ",
                                               kConfigFileName, " describes: the two do not belong together"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<WeightMap> MapTable(const std::shared_ptr<const SafetensorsFile>& file, const ModelConfig& config) {
  const std::vector<WeightSpec> table = WeightTable(config);
  WeightMap weights;
  for (const WeightSpec& spec : table) {
    absl::StatusOr<at::Tensor> weight = MapWeight(file, spec.name, spec.shape);
    if (absl::IsNotFound(weight.status())) {
      return absl::InvalidArgumentError(
          StrCat(MessageOf(weight.status()), ", which ", kConfigFileName, " asks for: copy the whole folder again"));
    }
    RETRO_RETURN_IF_ERROR(weight.status());
    weights.emplace(spec.name, *std::move(weight));
  }
  RETRO_RETURN_IF_ERROR(CheckNoExtra(*file, table));
  return weights;
}

// The weights, their values and the revision yet unchecked.
struct MappedWeights {
  std::shared_ptr<const SafetensorsFile> file;
  WeightMap weights;  // each of the file's tensors
};

absl::StatusOr<MappedWeights> MapWeights(const std::string& path, const ModelConfig& config) {
  RETRO_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  MappedWeights mapped{.file = std::make_shared<const SafetensorsFile>(std::move(file))};
  RETRO_ASSIGN_OR_RETURN(mapped.weights, CatchTorch([&] { return MapTable(mapped.file, config); }));
  return mapped;
}

// Hashes a tensor's bytes, and looks at the values of what has just been hashed: it comes from memory once.
absl::Status HashAndCheck(const SafetensorsFile& file, const std::string& name, const TensorView& tensor,
                          Sha256& hash) {
  absl::Status finite;
  for (std::string_view rest = tensor.bytes; !rest.empty();) {
    const std::string_view piece = rest.substr(0, kCheckedBytes);
    hash.Update(piece);
    finite.Update(CheckFinite(piece, tensor.dtype));
    rest.remove_prefix(piece.size());
  }
  if (finite.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat(file.path(), ": tensor '", name, "' ", MessageOf(finite)));
}

absl::Status CheckWeights(const SafetensorsFile& file, const CheckpointInfo& info) {
  std::map<const char*, const std::string*> in_order;  // names by where the tensors lie, without gaps, to the end
  for (const auto& [name, tensor] : file.tensors()) in_order.emplace(tensor.bytes.data(), &name);
  Sha256 hash;
  hash.Update(file.bytes().substr(0, in_order.begin()->first - file.bytes().data()));
  for (const auto& [place, name] : in_order) {
    RETRO_RETURN_IF_ERROR(HashAndCheck(file, *name, file.tensors().at(*name), hash));
  }
  const std::string revision = HexEncode(hash.Finish());
  if (info.revision.empty() || revision == info.revision) return absl::OkStatus();
  return absl::FailedPreconditionError(StrCat(file.path(), " has SHA-256 ", revision, ", ", kConfigFileName,
                                              " was written with ", info.revision,
                                              ": the file is damaged or another model's, copy the folder again"));
}

absl::Status MakeDirectory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return ErrnoStatus(error.value(), "cannot make folder", directory);
  return absl::OkStatus();
}

// Renames what took the place of an older model. The config's own successor goes last, when the others' names are on
// the disk.
absl::Status FinishReplacing(const std::string& directory) {
  const std::string next_config = NextPathIn(directory, kConfigFileName);
  if (!Exists(next_config)) return absl::OkStatus();
  RETRO_ASSIGN_OR_RETURN(const CheckpointInfo info, ReadCheckpointInfo(directory));
  RETRO_ASSIGN_OR_RETURN(const std::string config, ReadFile(next_config));
  std::error_code error;
  for (const std::string& name : {info.tokenizer_file, std::string(kWeightsFileName)}) {
    const std::string next = NextPathIn(directory, name);
    if (!name.empty() && Exists(next)) std::filesystem::rename(next, PathIn(directory, name), error);
    if (error) return ErrnoStatus(error.value(), "cannot rename", next);
  }
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(PathIn(directory, kConfigFileName), config));
  std::filesystem::remove(next_config, error);
  return error ? ErrnoStatus(error.value(), "cannot remove", next_config) : absl::OkStatus();
}

absl::Status WriteNextTokenizer(const std::string& directory, const std::string& name,
                                const std::optional<std::string>& bytes) {
  if (bytes) return WriteFileAtomically(NextPathIn(directory, name), *bytes);
  // The folder's own stays: not what a killed writer left.
  std::error_code error;
  if (!name.empty()) std::filesystem::remove(NextPathIn(directory, name), error);
  return error ? ErrnoStatus(error.value(), "cannot remove", NextPathIn(directory, name)) : absl::OkStatus();
}

}  // namespace

std::string ModelFilePath(const std::string& directory, const std::string& name) {
  const std::string next = NextPathIn(directory, name);
  return Exists(NextPathIn(directory, kConfigFileName)) && Exists(next) ? next : PathIn(directory, name);
}

absl::StatusOr<CheckpointInfo> ReadCheckpointInfo(const std::string& directory) {
  const std::string path = ModelFilePath(directory, kConfigFileName);
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(StrCat(directory, " is no model folder, it has no ", kConfigFileName,
                                      ": make one with retro-model init or import"));
  }
  RETRO_RETURN_IF_ERROR(text.status());
  absl::StatusOr<CheckpointInfo> info = ParseInfo(*text);
  if (!info.ok()) return absl::Status(info.status().code(), StrCat(path, ": ", MessageOf(info.status())));
  return info;
}

absl::StatusOr<std::map<std::string, at::Tensor>> ReadCheckpointWeights(const std::string& directory,
                                                                        const CheckpointInfo& info) {
  const std::string path = ModelFilePath(directory, kWeightsFileName);
  RETRO_ASSIGN_OR_RETURN(MappedWeights mapped, MapWeights(path, info.config));
  RETRO_RETURN_IF_ERROR(CheckWeights(*mapped.file, info));
  RETRO_RETURN_IF_ERROR(CatchTorch([&] {
    for (auto& [name, weight] : mapped.weights) weight = weight.to(at::kFloat);
    return absl::OkStatus();
  }));
  return std::move(mapped.weights);
}

absl::StatusOr<LoadedModel> LoadModel(const std::string& directory, const std::string& device,
                                      const ModelOptions& options) {
  LoadedModel loaded;
  RETRO_ASSIGN_OR_RETURN(loaded.info, ReadCheckpointInfo(directory));
  const std::string path = ModelFilePath(directory, kWeightsFileName);
  RETRO_ASSIGN_OR_RETURN(const MappedWeights mapped, MapWeights(path, loaded.info.config));
  // Checking takes as long as making the model does: both at once, and the check has the word.
  std::future<absl::Status> check =
      std::async(std::launch::async, [&] { return CheckWeights(*mapped.file, loaded.info); });
  absl::StatusOr<std::unique_ptr<RetroModel>> model =
      RetroModel::Create(loaded.info.config, mapped.weights, device, options);
  RETRO_RETURN_IF_ERROR(check.get());
  RETRO_ASSIGN_OR_RETURN(loaded.model, std::move(model));
  GiveFreedMemoryBack();  // position tables are made of tensors several times their size
  return loaded;
}

absl::StatusOr<std::string> SaveCheckpoint(const std::string& directory, const CheckpointInfo& info,
                                           const std::map<std::string, at::Tensor>& weights,
                                           const std::string& tokenizer_path) {
  const auto weight = [&weights](const WeightSpec& spec) -> absl::StatusOr<at::Tensor> {
    const auto found = weights.find(spec.name);
    if (found == weights.end()) return absl::InvalidArgumentError(StrCat("weight '", spec.name, "' is missing"));
    return found->second;
  };
  return SaveCheckpoint(directory, info, weight, tokenizer_path);
}

absl::StatusOr<std::string> SaveCheckpoint(const std::string& directory, const CheckpointInfo& info,
                                           const WeightGiver& weight, const std::string& tokenizer_path) {
  RETRO_RETURN_IF_ERROR(ValidateModelConfig(info.config));
  RETRO_RETURN_IF_ERROR(MakeDirectory(directory));
  std::optional<std::string> tokenizer;
  if (!tokenizer_path.empty()) {
    RETRO_ASSIGN_OR_RETURN(tokenizer, ReadFile(tokenizer_path));  // which may be the folder's own
  }
  RETRO_RETURN_IF_ERROR(FinishReplacing(directory));
  RETRO_RETURN_IF_ERROR(WriteNextTokenizer(directory, info.tokenizer_file, tokenizer));
  std::map<std::string, WeightSpec> table;
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const WeightSpec& spec : WeightTable(info.config)) {
    table.emplace(spec.name, spec);
    shapes[spec.name] = spec.shape;
  }
  const std::string path = NextPathIn(directory, kWeightsFileName);
  RETRO_RETURN_IF_ERROR(CatchTorch([&] {
    return WriteWeights(path, shapes, {{"format", kFormat}},
                        [&](const std::string& name) { return weight(table.at(name)); });
  }));
  CheckpointInfo written = info;
  RETRO_ASSIGN_OR_RETURN(written.revision, FileRevision(path));
  // From here on the folder holds the new model.
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(NextPathIn(directory, kConfigFileName), InfoToJson(written)));
  RETRO_RETURN_IF_ERROR(FinishReplacing(directory));
  return written.revision;
}

}  // namespace retro
