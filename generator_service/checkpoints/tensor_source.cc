#include "generator_service/checkpoints/tensor_source.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "generator_service/checkpoints/tensor_io.h"

namespace retro {

std::string DroppedNote(const std::string& path, const std::vector<std::string>& names, std::string_view why) {
  const size_t others = names.size() - 1;
  const std::string rest = others == 0 ? " was" : StrCat(" and ", others, others == 1 ? " other were" : " others were");
  return StrCat(path, ": '", names[0], "'", rest, " dropped: ", why);
}

SafetensorsSource::SafetensorsSource(SafetensorsFile file) : file_(std::move(file)) {
  for (const auto& [name, tensor] : file_.tensors()) shapes_[name] = tensor.shape;
}

absl::StatusOr<std::unique_ptr<TensorSource>> SafetensorsSource::Open(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
  return std::unique_ptr<TensorSource>(new SafetensorsSource(std::move(file)));
}

absl::StatusOr<at::Tensor> SafetensorsSource::Read(const std::string& name) const { return ReadFloats(file_, name); }

}  // namespace retro
