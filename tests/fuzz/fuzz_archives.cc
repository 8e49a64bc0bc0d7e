// Files that another program may have written, for `retro-model import`: zip archives, PyTorch's files, configs.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "common/base/strings.h"
#include "generator_service/checkpoints/foreign_config.h"
#include "generator_service/checkpoints/torch_archive.h"
#include "generator_service/checkpoints/zip_archive.h"
#include "tests/fuzz/fuzz.h"

namespace retro {
namespace {

// Little-endian.
std::string Number(uint64_t value, size_t bytes) { return {reinterpret_cast<const char*>(&value), bytes}; }

// An archive of stored entries, as torch.save writes it.
std::string ZipOf(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string archive, directory;
  for (const auto& [name, bytes] : entries) {
    const std::string sizes = Number(0, 4) + Number(bytes.size(), 4) + Number(bytes.size(), 4) + Number(name.size(), 2);
    directory += "PK\1\2" + Number(20, 2) + Number(20, 2) + Number(0, 8) + sizes + std::string(12, '\0') +
                 Number(archive.size(), 4) + name;
    archive += "PK\3\4" + Number(20, 2) + Number(0, 8) + sizes + Number(0, 2) + name + bytes;
  }
  return archive + directory + "PK\5\6" + Number(0, 4) + Number(entries.size(), 2) + Number(entries.size(), 2) +
         Number(directory.size(), 4) + Number(archive.size(), 4) + Number(0, 2);
}

// {"w": a tensor of 2 x 3 floats}
std::string TensorPickle() {
  using std::string_literals::operator""s;  // bytes that are 0
  return "\x80\2}U\1wctorch._utils\n_rebuild_tensor_v2\n((U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\6tQ"
         "K\0K\2K\3\x86K\3K\1\x86\x89}tRs."s;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {ZipOf({{"a/data.pkl", "\x80\2}."}}),
          ZipOf({{"a/data.pkl", TensorPickle()}, {"a/data/0", std::string(24, '\x3c')}, {"a/version", "3\n"}}),
          R"({"config": {"width": 32, "layers": [1, 2], "gate": 0.5, "tie": true, "name": "x"}})"};
}

void FuzzOne(std::string_view input) {
  const auto entries = ReadZipArchive(input);
  if (entries.ok()) {
    for (const auto& [name, bytes] : *entries) {
      Require(
          bytes.empty() || (bytes.data() >= input.data() && bytes.data() + bytes.size() <= input.data() + input.size()),
          "an entry lies outside of its archive");
    }
  }
  static const int file = memfd_create("fuzz", 0);
  const auto size = static_cast<ssize_t>(input.size());
  Require(ftruncate(file, 0) == 0 && pwrite(file, input.data(), input.size(), 0) == size, "no memory file");
  const std::string path = StrCat("/proc/self/fd/", file);
  const auto archive = TorchArchive::Open(path);
  if (archive.ok()) {
    for (const auto& [name, shape] : (*archive)->shapes()) static_cast<void>((*archive)->Read(name));
  }
  const auto fields = ReadConfigFile(path);
  if (!fields.ok()) return;
  ForeignConfig config(*fields, "the config");
  static_cast<void>(config.Integer("width"));
  static_cast<void>(config.Integers("layers", {}));
  static_cast<void>(config.Number("gate", 0));
  static_cast<void>(config.Flag("tie", false));
  static_cast<void>(config.Text("name", ""));
  static_cast<void>(config.UnusedKeys());
}

}  // namespace retro
