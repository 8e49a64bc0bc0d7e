#include "retriever_service/replica/store_copy.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "retriever_service/store/folder.h"

namespace retro {
namespace {

namespace fs = std::filesystem;

// Within the data folder: what is sent, and what is taken. A copy taken whole has the file `complete` beside it.
constexpr char kOutgoing[] = "/copies/";
constexpr char kIncoming[] = "/incoming/";
constexpr char kRocks[] = "rocksdb";
constexpr char kIndex[] = "index/";  // and what names of its files begin with; the others are RocksDB's
constexpr char kComplete[] = "complete";
constexpr size_t kPartBytes = size_t{1} << 20;

absl::Status FromSystem(const std::error_code& error, std::string_view what, const std::string& path) {
  return error ? ErrnoStatus(error.value(), what, path) : absl::OkStatus();
}

absl::Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return FromSystem(error, "cannot remove", path);
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return FromSystem(error, "cannot make", path);
}

// Names that a store's files have; a copy that comes over the wire may choose no others.
bool IsFileName(const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_';
  });
  return plain && !name.empty() && name[0] != '.';
}

absl::Status Damaged(std::string_view what) {
  return Error(absl::StatusCode::kDataLoss, Reason::kStoreDamaged, StrCat("a copy of a store: ", what));
}

using Send = std::function<absl::Status(const shardpb::FetchSnapshotResponse&)>;

// `last` is sent with the last part of it.
absl::Status SendFile(const std::string& path, const std::string& name, const shardpb::FetchSnapshotResponse& last,
                      const Send& send) {
  std::ifstream file(path, std::ios::binary);
  Sha256 hash;
  for (bool first = true, more = true; more; first = false) {
    shardpb::FetchSnapshotResponse part;
    std::string& content = *part.mutable_content();
    content.resize(kPartBytes);
    file.read(content.data(), static_cast<std::streamsize>(content.size()));
    if (file.bad() || (first && !file.is_open())) return absl::InternalError(StrCat("cannot read ", path));
    content.resize(static_cast<size_t>(file.gcount()));
    more = !file.eof();
    hash.Update(content);
    if (first) part.set_file_name(name);
    if (!more) {
      part.set_sha256(hash.Finish());
      part.MergeFrom(last);
    }
    RETRO_RETURN_IF_ERROR(send(part));
  }
  return absl::OkStatus();
}

// Of each collection the manifest first: what it names is whole for as long as it is there. What goes meanwhile, as
// segments are merged, is made again by who takes the copy.
void LinkIndex(const std::string& from, const std::string& to) {
  std::error_code gone;
  for (const std::string& collection : NamesIn(from, gone)) {
    const std::string source = StrCat(from, collection, "/"), target = StrCat(to, collection, "/");
    fs::create_directories(target, gone);
    fs::create_hard_link(source + "manifest", target + "manifest", gone);
    for (const std::string& name : NamesIn(source, gone)) {
      if (name != "manifest") fs::create_hard_link(source + name, target + name, gone);
    }
  }
}

absl::Status SendFolder(const std::string& folder, const shardpb::Position& position, const Send& send) {
  std::vector<std::pair<std::string, std::string>> files;  // name, path
  std::error_code error;                                   // of the index: what is not sent is made again
  for (const std::string& collection : NamesIn(folder + kIndex, error)) {
    for (const std::string& name : NamesIn(StrCat(folder, kIndex, collection), error)) {
      const std::string sent = StrCat(kIndex, collection, "/", name);
      files.emplace_back(sent, folder + sent);
    }
  }
  const std::vector<std::string> store = NamesIn(folder + kRocks, error);
  RETRO_RETURN_IF_ERROR(FromSystem(error, "cannot list", folder + kRocks));
  for (const std::string& name : store) files.emplace_back(name, StrCat(folder, kRocks, "/", name));
  for (size_t i = 0; i < files.size(); ++i) {
    shardpb::FetchSnapshotResponse last;
    if (i + 1 == files.size()) *last.mutable_position() = position;
    RETRO_RETURN_IF_ERROR(SendFile(files[i].second, files[i].first, last, send));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SendStoreCopy(const LocalShard& shard, const std::string& data, bool with_index, const Send& send) {
  static std::atomic<uint64_t> copies = 0;
  const std::string folder = StrCat(data, kOutgoing, ++copies, "/");
  RETRO_RETURN_IF_ERROR(MakeFolder(folder));
  if (with_index) LinkIndex(StrCat(data, "/", kIndex), folder + kIndex);  // before the store: it must not be newer
  const shardpb::Position position = shard.position();                    // before the copy, which holds at least this
  absl::Status status = shard.Copy(folder + kRocks, [] { return absl::OkStatus(); });
  if (status.ok()) status = SendFolder(folder, position, send);
  if (const absl::Status removed = Remove(folder); status.ok()) status = removed;
  return status;
}

// ---------------------------------------------------------------- taking

absl::StatusOr<StoreCopyReceiver> StoreCopyReceiver::Start(const std::string& data) {
  RETRO_RETURN_IF_ERROR(Remove(data + kIncoming));
  RETRO_RETURN_IF_ERROR(MakeFolder(data + kIncoming + kRocks));
  return StoreCopyReceiver(data);
}

absl::Status StoreCopyReceiver::Begin(const std::string& name) {
  std::string folder = StrCat(data_, kIncoming, kRocks, "/"), file_name = name;
  if (name.starts_with(kIndex)) {
    const std::string rest = name.substr(sizeof kIndex - 1);
    const std::string collection = rest.substr(0, rest.find('/'));
    if (!IsFileName(collection) || collection.size() == rest.size()) return Damaged("it has a file of a strange name");
    folder = StrCat(data_, kIncoming, kIndex, collection, "/");
    file_name = rest.substr(collection.size() + 1);
    RETRO_RETURN_IF_ERROR(MakeFolder(folder));
  }
  if (!IsFileName(file_name)) return Damaged("it has a file of a strange name");
  file_name_ = name;
  hash_ = std::make_unique<Sha256>();
  RETRO_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(folder + file_name));
  file_.emplace(std::move(file));
  return absl::OkStatus();
}

absl::Status StoreCopyReceiver::Take(const shardpb::FetchSnapshotResponse& part) {
  if (!part.file_name().empty()) RETRO_RETURN_IF_ERROR(Begin(part.file_name()));
  if (!file_.has_value()) return Damaged("it begins without a file");
  hash_->Update(part.content());
  RETRO_RETURN_IF_ERROR(file_->Append(part.content()));
  if (part.sha256().empty()) return absl::OkStatus();
  if (hash_->Finish() != part.sha256()) return Damaged(file_name_ + " does not have its checksum");
  RETRO_RETURN_IF_ERROR(file_->Commit());
  file_.reset();
  complete_ = part.has_position();
  return absl::OkStatus();
}

absl::Status StoreCopyReceiver::Install() {
  if (!complete_) return Damaged("it ended early");
  RETRO_RETURN_IF_ERROR(WriteFileAtomically(data_ + kIncoming + kComplete, ""));
  return FinishStoreCopy(data_);
}

// Each step may be the last one that a crash lets happen; the next call goes on with it.
absl::Status FinishStoreCopy(const std::string& data) {
  RETRO_RETURN_IF_ERROR(Remove(data + kOutgoing));
  const std::string incoming = data + kIncoming;
  std::error_code error;
  if (fs::exists(incoming + kComplete, error) && fs::exists(incoming + kRocks, error)) {
    for (const char* old : {"/acknowledged", "/index", "/rocksdb"}) RETRO_RETURN_IF_ERROR(Remove(data + old));
    // The index first: once the store is there, this is not done again.
    if (fs::exists(incoming + kIndex, error)) RETRO_RETURN_IF_ERROR(RenameDurably(incoming + "index", data + "/index"));
    RETRO_RETURN_IF_ERROR(RenameDurably(incoming + kRocks, StrCat(data, "/", kRocks)));
  }
  return Remove(incoming);
}

}  // namespace retro
