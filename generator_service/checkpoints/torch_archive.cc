#include "generator_service/checkpoints/torch_archive.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/pickle.h"
#include "generator_service/checkpoints/zip_archive.h"

namespace retro {
namespace {

using Json = nlohmann::ordered_json;
using Kind = PickleValue::Kind;
using Entries = std::map<std::string, std::string_view, std::less<>>;

constexpr std::string_view kPickleEntry = "data.pkl";
constexpr std::string_view kRebuildTensor = "torch._utils\n_rebuild_tensor_v2";
constexpr std::string_view kRebuildParameter = "torch._utils\n_rebuild_parameter";
constexpr size_t kDimensionsMax = 16;
constexpr int kDepthMax = 32;                      // of dictionaries in dictionaries
constexpr size_t kVisitsMax = 1 << 20;             // of values: dictionaries may be shared
constexpr size_t kTextBytesMax = kPickleBytesMax;  // of all names and texts kept: a pickle may name one many times

std::optional<at::ScalarType> StorageType(std::string_view global) {
  static const auto* types = new std::map<std::string_view, at::ScalarType>{
      {"torch\nFloatStorage", at::kFloat}, {"torch\nDoubleStorage", at::kDouble},
      {"torch\nHalfStorage", at::kHalf},   {"torch\nBFloat16Storage", at::kBFloat16},
      {"torch\nLongStorage", at::kLong},   {"torch\nIntStorage", at::kInt},
      {"torch\nShortStorage", at::kShort}, {"torch\nCharStorage", at::kChar},
      {"torch\nByteStorage", at::kByte},   {"torch\nBoolStorage", at::kBool}};
  const auto found = types->find(global);
  return found == types->end() ? std::nullopt : std::optional(found->second);
}

bool IsGlobal(const PickleValue* value, std::string_view name) {
  return value != nullptr && value->kind == Kind::kGlobal && value->text == name;
}

bool IsCallOf(const PickleValue& value, std::string_view name, size_t arguments) {
  return value.kind == Kind::kObject && IsGlobal(value.callable, name) && value.arguments != nullptr &&
         value.arguments->kind == Kind::kTuple && value.arguments->items.size() >= arguments;
}

bool HasEntries(const PickleValue& value) { return value.kind == Kind::kDict || !value.entries.empty(); }

std::optional<std::vector<int64_t>> Integers(const PickleValue& tuple) {
  if (tuple.kind != Kind::kTuple || tuple.items.size() > kDimensionsMax) return std::nullopt;
  std::vector<int64_t> integers;
  for (const PickleValue* item : tuple.items) {
    if (item->kind != Kind::kInteger || item->integer < 0) return std::nullopt;
    integers.push_back(item->integer);
  }
  return integers;
}

// A plain value as JSON; nothing for containers and what is opaque.
std::optional<Json> PlainJson(const PickleValue& value) {
  switch (value.kind) {
    case Kind::kNone:
      return Json();
    case Kind::kBool:
      return Json(value.integer != 0);
    case Kind::kInteger:
      return Json(value.integer);
    case Kind::kNumber:
      return Json(value.number);
    case Kind::kText:
      return Json(std::string(value.text));
    default:
      return std::nullopt;
  }
}

}  // namespace

// From the archive's entries to the members of TorchArchive.
class TorchArchiveReader {
 public:
  TorchArchiveReader(Entries entries, TorchArchive& archive) : entries_(std::move(entries)), archive_(archive) {}

  absl::Status Run() {
    RETRO_RETURN_IF_ERROR(FindRoot());
    RETRO_ASSIGN_OR_RETURN(const Pickle pickle, Pickle::Read(entries_.find(root_ + std::string(kPickleEntry))->second));
    const PickleValue& root = pickle.root();
    if (!HasEntries(root)) return absl::InvalidArgumentError("its pickle holds no dictionary");
    for (const char* key : {"state_dict", "model"}) {
      const PickleValue* weights = root.Find(key);
      if (weights == nullptr || !HasEntries(*weights)) continue;
      RETRO_RETURN_IF_ERROR(ReadFacts(root, key));
      return Walk(*weights, "", 0);
    }
    return Walk(root, "", 0);
  }

  // What was not read.
  void WriteNotes() {
    if (!beside_.empty()) archive_.notes_.push_back(DroppedNote(archive_.path_, beside_, "beside the weights"));
    if (!no_tensors_.empty()) archive_.notes_.push_back(DroppedNote(archive_.path_, no_tensors_, "no tensor"));
  }

 private:
  // The folder that all entries are in.
  absl::Status FindRoot() {
    std::optional<std::string> root;
    for (const auto& [name, bytes] : entries_) {
      if (!name.ends_with(kPickleEntry)) continue;
      if (root) return absl::InvalidArgumentError("has two pickles");
      root = name.substr(0, name.size() - kPickleEntry.size());
    }
    if (!root) return absl::InvalidArgumentError("has no pickle: it is not what torch.save writes");
    root_ = *root;
    const auto order = entries_.find(root_ + "byteorder");
    if (order != entries_.end() && order->second != "little") {
      return absl::InvalidArgumentError(StrCat("has byte order '", order->second, "', only little is read"));
    }
    return absl::OkStatus();
  }

  // To be asked before texts of so many bytes are copied.
  absl::Status KeepText(size_t bytes) {
    text_bytes_ += bytes;
    if (text_bytes_ <= kTextBytesMax) return absl::OkStatus();
    return absl::InvalidArgumentError(StrCat("has more than ", kTextBytesMax, " bytes of names"));
  }

  // Whatever stands beside the weights: plain values, also those of an object with named arguments.
  absl::Status ReadFacts(const PickleValue& root, std::string_view weights) {
    for (const auto& [name, value] : root.entries) {
      if (name->kind != Kind::kText || name->text == weights) continue;
      RETRO_RETURN_IF_ERROR(KeepText(name->text.size() + value->text.size()));
      const std::string key(name->text);
      if (const std::optional<Json> plain = PlainJson(*value)) {
        archive_.facts_[key] = *plain;
      } else if (value->state != nullptr && value->state->kind == Kind::kDict) {
        Json& facts = archive_.facts_[key] = Json::object();
        for (const auto& [field, field_value] : value->state->entries) {
          RETRO_RETURN_IF_ERROR(KeepText(field->text.size() + field_value->text.size()));
          const std::optional<Json> plain_field = PlainJson(*field_value);
          if (field->kind == Kind::kText && plain_field) facts[std::string(field->text)] = *plain_field;
        }
      } else {
        beside_.push_back(key);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Walk(const PickleValue& dictionary, const std::string& prefix, int depth) {
    if (depth > kDepthMax) return absl::InvalidArgumentError("its dictionaries are nested too deeply");
    for (const auto& [key, value] : dictionary.entries) {
      if (++visits_ > kVisitsMax) return absl::InvalidArgumentError(StrCat("has more than ", kVisitsMax, " values"));
      if (key->kind != Kind::kText) continue;
      RETRO_RETURN_IF_ERROR(KeepText(prefix.size() + key->text.size()));
      const std::string name = prefix + std::string(key->text);
      const PickleValue* tensor = value;
      if (IsCallOf(*tensor, kRebuildParameter, 1)) tensor = tensor->arguments->items[0];
      if (IsCallOf(*tensor, kRebuildTensor, 4)) {
        const absl::Status added = AddTensor(name, *tensor->arguments);
        if (!added.ok()) return absl::InvalidArgumentError(StrCat("tensor '", name, "': ", MessageOf(added)));
      } else if (HasEntries(*value)) {
        RETRO_RETURN_IF_ERROR(Walk(*value, name + ".", depth + 1));
      } else {
        no_tensors_.push_back(name);
      }
    }
    return absl::OkStatus();
  }

  // arguments: storage, offset, shape, strides, ...
  absl::Status AddTensor(const std::string& name, const PickleValue& arguments) {
    TorchArchive::Stored stored;
    RETRO_RETURN_IF_ERROR(FindStorage(*arguments.items[0], stored));
    const PickleValue& offset = *arguments.items[1];
    const auto shape = Integers(*arguments.items[2]);
    const auto strides = Integers(*arguments.items[3]);
    if (offset.kind != Kind::kInteger || offset.integer < 0 || !shape || !strides || shape->size() != strides->size()) {
      return absl::InvalidArgumentError("its shape is no shape");
    }
    stored.shape = *shape;
    stored.strides = *strides;
    RETRO_RETURN_IF_ERROR(CutToExtent(offset.integer, stored));
    if (!archive_.tensors_.emplace(name, stored).second) return absl::InvalidArgumentError("it occurs twice");
    archive_.shapes_[name] = stored.shape;
    return absl::OkStatus();
  }

  // id: "storage", type, key, device, elements.
  absl::Status FindStorage(const PickleValue& storage, TorchArchive::Stored& stored) const {
    const PickleValue* id = storage.kind == Kind::kPersistent ? storage.callable : nullptr;
    if (id == nullptr || id->kind != Kind::kTuple || id->items.size() != 5 || id->items[1]->kind != Kind::kGlobal ||
        id->items[2]->kind != Kind::kText) {
      return absl::InvalidArgumentError("its storage is of an unknown kind");
    }
    const std::optional<at::ScalarType> type = StorageType(id->items[1]->text);
    if (!type) return absl::InvalidArgumentError("its storage is of an unknown type");
    const std::string key = StrCat(root_, "data/", id->items[2]->text);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return absl::InvalidArgumentError(StrCat("its bytes '", key, "' are missing"));
    stored.bytes = found->second;
    stored.type = *type;
    return absl::OkStatus();
  }

  // `offset` in elements. All lie within the storage, and there are no more of them than it holds. Other tensors may
  // lie in it too.
  static absl::Status CutToExtent(int64_t offset, TorchArchive::Stored& stored) {
    const size_t element_bytes = at::elementSize(stored.type);
    const auto held = static_cast<int64_t>(stored.bytes.size() / element_bytes);
    int64_t count = 1;
    int64_t last = offset;
    bool fits = true;
    for (size_t i = 0; i < stored.shape.size(); ++i) {
      int64_t step = 0;
      fits = fits && !__builtin_mul_overflow(count, stored.shape[i], &count);
      fits = fits && !__builtin_mul_overflow(std::max<int64_t>(stored.shape[i] - 1, 0), stored.strides[i], &step);
      fits = fits && !__builtin_add_overflow(last, step, &last);
    }
    if (!fits || (count > 0 && (last >= held || count > held))) {
      return absl::InvalidArgumentError(StrCat("shape ", ShapeString(stored.shape), " does not fit the ",
                                               stored.bytes.size(), " bytes of its storage"));
    }
    const int64_t spanned = count > 0 ? last + 1 - offset : 0;
    stored.bytes = count > 0 ? stored.bytes.substr(static_cast<size_t>(offset) * element_bytes,
                                                   static_cast<size_t>(spanned) * element_bytes)
                             : std::string_view();
    return absl::OkStatus();
  }

  Entries entries_;
  TorchArchive& archive_;
  std::string root_;
  std::vector<std::string> beside_;      // keys beside the weights that are no plain values
  std::vector<std::string> no_tensors_;  // names among the weights
  size_t visits_ = 0;
  size_t text_bytes_ = 0;
};

absl::StatusOr<std::unique_ptr<TorchArchive>> TorchArchive::Open(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  auto archive = std::unique_ptr<TorchArchive>(new TorchArchive(path, std::move(file)));
  absl::StatusOr<Entries> entries = ReadZipArchive(archive->file_.bytes());
  if (!entries.ok()) return absl::InvalidArgumentError(StrCat(path, " ", MessageOf(entries.status())));
  TorchArchiveReader reader(*std::move(entries), *archive);
  const absl::Status status = reader.Run();
  if (!status.ok()) return absl::InvalidArgumentError(StrCat(path, " ", MessageOf(status)));
  reader.WriteNotes();
  return archive;
}

absl::StatusOr<at::Tensor> TorchArchive::Read(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return absl::NotFoundError(StrCat(path_, " has no tensor '", name, "'"));
  const Stored& stored = found->second;
  if (!at::isFloatingType(stored.type)) {
    return absl::InvalidArgumentError(StrCat(path_, ": tensor '", name, "' is not floating point"));
  }
  if (stored.bytes.empty()) return at::zeros(stored.shape);
  // The bytes may lie unaligned and are copied.
  at::Tensor spanned = at::empty({static_cast<int64_t>(stored.bytes.size() / at::elementSize(stored.type))},
                                 at::TensorOptions().dtype(stored.type));
  std::memcpy(spanned.mutable_data_ptr(), stored.bytes.data(), spanned.nbytes());
  file_.Forget(stored.bytes);
  return spanned.as_strided(stored.shape, stored.strides).to(at::kFloat).contiguous();
}

}  // namespace retro
