// Any bytes as the parts of a copy of a store, as a replica takes them from its primary: each a byte of length and so
// many of a message. Nothing may come to lie beside the copy's own folder, and nothing is put in a store's place that
// does not have its checksums.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/base/hash.h"
#include "retriever_service/replica/store_copy.h"
#include "tests/fuzz/fuzz.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

namespace fs = std::filesystem;

constexpr char kOld[] = "what was there";

std::string Part(const char* name, const std::string& content, bool last_of_all) {
  shardpb::FetchSnapshotResponse part;
  part.set_file_name(name);
  part.set_content(content);
  Sha256 hash;
  hash.Update(content);
  part.set_sha256(hash.Finish());
  if (last_of_all) part.mutable_position()->set_number(7);
  const std::string bytes = part.SerializeAsString();
  return std::string(1, static_cast<char>(bytes.size())) + bytes;
}

// The paths of everything in a folder, in order.
std::vector<std::string> Everything(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {Part("CURRENT", "MANIFEST-000005\n", false) + Part("MANIFEST-000005", "rows", true),
          Part("index/1/manifest", "segments", false) + Part("000009.sst", "", true), Part("../outside", "x", true),
          Part("index/../outside", "x", false) + Part("index/1/../../outside", "x", true)};
}

void FuzzOne(std::string_view input) {
  static const TemporaryFolder folder;
  const std::string data = folder / "above/data";
  fs::create_directories(data + "/rocksdb");
  std::ofstream(data + "/rocksdb/CURRENT") << kOld;
  const std::vector<std::string> before = Everything(folder.path());
  auto receiver = StoreCopyReceiver::Start(data);
  Require(receiver.ok(), "it does not begin");
  bool taken = true;
  while (taken && !input.empty()) {
    const size_t size = std::min<size_t>(static_cast<unsigned char>(input[0]), input.size() - 1);
    shardpb::FetchSnapshotResponse part;
    taken = part.ParseFromArray(input.data() + 1, static_cast<int>(size)) && receiver->Take(part).ok();
    input.remove_prefix(1 + size);
  }
  for (const std::string& path : Everything(folder.path())) {
    const bool was_there = std::binary_search(before.begin(), before.end(), path);
    Require(was_there || path.starts_with(data + "/incoming"), "a file beside the copy");
  }
  const bool installed = taken && receiver->Install().ok();
  if (!installed) Require(FinishStoreCopy(data).ok(), "the old store is not left alone");
  std::ifstream current(data + "/rocksdb/CURRENT");
  const std::string text{std::istreambuf_iterator<char>(current), {}};
  Require(installed || text == kOld, "the old store has changed");
  fs::remove_all(folder / "above");
}

}  // namespace retro
