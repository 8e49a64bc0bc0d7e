// Files of unknown origin: seeded mutations of sound ones, and the worst ones by hand. Whatever comes in, the readers
// say OK or INVALID_ARGUMENT; they never crash, and never take memory that the file does not have.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/safetensors/safetensors.h"
#include "generator_service/checkpoints/foreign_format.h"
#include "generator_service/checkpoints/pickle.h"
#include "generator_service/checkpoints/torch_archive.h"
#include "generator_service/checkpoints/zip_archive.h"
#include "generator_service/model/config.h"
#include "generator_service/model/weight_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

using ::testing::HasSubstr;
using std::string_literals::operator""s;  // bytes that are 0

constexpr uint32_t kSeed = 20211208;
constexpr int kMutations = 4000;
constexpr int kSlowMutations = 600;  // of what takes a file of weights to read

// Changes a few places: bits, bytes of interest, numbers, cuts, copies of one stretch over another.
std::string Mutated(std::string bytes, std::mt19937& random) {
  const auto below = [&](size_t bound) { return bound == 0 ? 0 : random() % bound; };
  for (size_t changes = 1 + below(4); changes > 0 && !bytes.empty(); --changes) {
    const size_t at = below(bytes.size());
    switch (below(6)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        bytes[at] = "\0\xff\x7f\x80[]{}\"9-.u"[below(13)];
        break;
      case 2: {
        const uint64_t numbers[] = {0, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{1} << 32, bytes.size(), 0x7fffffff};
        const size_t size = std::min<size_t>(1ULL << below(4), bytes.size() - at);
        std::memcpy(bytes.data() + at, &numbers[below(6)], size);
        break;
      }
      case 3:
        bytes.resize(at);
        break;
      case 4:
        bytes.insert(at, bytes.substr(below(bytes.size()), below(40)));
        break;
      default:
        bytes.erase(at, below(40));
    }
  }
  return bytes;
}

// Runs `read` on mutations of `sound`, which itself must be accepted.
void Hammer(const char* what, const std::string& sound, const std::function<absl::Status(const std::string&)>& read,
            int mutations = kMutations) {
  ASSERT_TRUE(read(sound).ok()) << what << ": " << read(sound);
  std::mt19937 random(kSeed);
  int accepted = 0;
  for (int i = 0; i < mutations; ++i) {
    const absl::Status status = read(Mutated(sound, random));
    if (status.ok()) {
      ++accepted;
    } else {
      ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << what << ", mutation " << i << ": " << status;
      ASSERT_FALSE(MessageOf(status).empty());
    }
  }
  std::cout << what << ": seed " << kSeed << ", " << accepted << " of " << mutations << " mutations accepted\n";
}

std::string TemporaryPath(const char* name) { return StrCat(::testing::TempDir(), "/hostile_", name); }

std::string Put(const char* name, const std::string& bytes) {
  const std::string path = TemporaryPath(name);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string SoundSafetensors() {
  const std::string data(4 * 6 + 2 * 4, '\x3c');
  const std::string path = TemporaryPath("sound.safetensors");
  const NamedTensor tensors[] = {{"one.weight", {DType::kF32, {2, 3}, std::string_view(data).substr(0, 24)}},
                                 {"two.bias", {DType::kF16, {4}, std::string_view(data).substr(24)}}};
  EXPECT_TRUE(WriteSafetensors(path, tensors, {{"format", "pt"}}).ok());
  return *ReadFile(path);
}

std::string RankFile() {
  return SourcePath("tests/goldens/foreign/instructretro_tp2/release/mp_rank_00/model_optim_rng.pt");
}

TEST(HostileFilesTest, Safetensors) {
  Hammer("safetensors", SoundSafetensors(),
         [](const std::string& bytes) { return SafetensorsFile::Open(Put("x.safetensors", bytes)).status(); });
}

TEST(HostileFilesTest, ModelConfigs) {
  ModelConfig config = *PresetModelConfig("retro-demo");
  Hammer("model config", ModelConfigToJson(config), [](const std::string& bytes) {
    const auto read = ModelConfigFromJson(bytes);
    if (read.ok()) {
      EXPECT_GT(CountParameters(WeightTable(*read)), 0);  // whatever is accepted can be counted
    }
    return read.status();
  });
}

TEST(HostileFilesTest, ForeignConfigs) {
  const std::string folder = SourcePath("tests/goldens/foreign/");
  for (const auto& [format, name] : std::vector<std::pair<std::string, std::string>>{
           {"norlund", "norlund_tiny_pads_ragged"}, {"megatron", "megatron_tiny_ragged"}}) {
    const std::string weights = folder + name + ".weights.safetensors";
    // The config alone, without the fixture's lists.
    const std::string whole = *ReadFile(folder + name + ".json");
    const std::string config =
        whole.substr(whole.find("\"config\""), whole.find("\"notes\"") - whole.find("\"config\""));
    const std::string sound = StrCat("{", config.substr(0, config.rfind(',')), "}");
    Hammer(
        name.c_str(), sound,
        [&, format = format](const std::string& bytes) {
          const auto opened = ForeignModel::Open(**FindForeignFormat(format), Put("config.json", bytes), weights);
          if (opened.status().code() != absl::StatusCode::kNotFound) return opened.status();
          return absl::InvalidArgumentError(StrCat("a tensor: ", MessageOf(opened.status())));
        },
        kSlowMutations);
  }
}

TEST(HostileFilesTest, Pickles) {
  const std::string archive = *ReadFile(RankFile());
  const auto entries = *ReadZipArchive(archive);
  const std::string pickle(entries.at("model_optim_rng/data.pkl"));
  Hammer("pickle", pickle, [](const std::string& bytes) { return Pickle::Read(bytes).status(); });
}

TEST(HostileFilesTest, TorchArchives) {
  // What is read of the archive stands at its two ends: most mutations in between would change numbers only.
  constexpr size_t kPickle = 40000;
  constexpr size_t kDirectory = 12000;
  const std::string archive = *ReadFile(RankFile());
  const std::string middle = archive.substr(kPickle, archive.size() - kPickle - kDirectory);
  Hammer(
      "torch archive", archive.substr(0, kPickle) + archive.substr(archive.size() - kDirectory),
      [&](const std::string& ends) {
        const size_t cut = ends.size() - std::min(ends.size(), kDirectory);
        const auto opened = TorchArchive::Open(Put("x.pt", ends.substr(0, cut) + middle + ends.substr(cut)));
        if (!opened.ok()) return opened.status();
        for (const auto& [name, shape] : (*opened)->shapes()) {
          const auto tensor = (*opened)->Read(name);
          if (!tensor.ok()) return tensor.status();
        }
        return absl::OkStatus();
      },
      kSlowMutations);
}

// ---------------------------------------------------------------- the worst by hand

std::string SafetensorsSays(const std::string& header, size_t data = 8) {
  std::string bytes(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(bytes.data(), &size, sizeof size);
  return std::string(
      MessageOf(SafetensorsFile::Open(Put("y.safetensors", bytes + header + std::string(data, 'x'))).status()));
}

TEST(HostileFilesTest, SafetensorsByHand) {
  EXPECT_THAT(SafetensorsSays(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                              R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
              HasSubstr("'b': its bytes overlap another's"));
  EXPECT_THAT(SafetensorsSays(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})"),
              HasSubstr("does not fit its 8 bytes"));
  EXPECT_THAT(SafetensorsSays(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})"),
              HasSubstr("not within the file's 8"));
  EXPECT_THAT(SafetensorsSays(std::string(200000, '[')), HasSubstr("not a JSON object"));
  EXPECT_THAT(SafetensorsSays(R"({"a":)" + std::string(100000, '[')), HasSubstr("not a JSON object"));
}

TEST(HostileFilesTest, DeepConfigs) {
  const std::string deep = StrCat(R"({"cca_layers":)", std::string(100000, '['), std::string(100000, ']'), "}");
  EXPECT_EQ(ModelConfigFromJson(deep).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ModelConfigFromJson(std::string(1000000, '[')).status().code(), absl::StatusCode::kInvalidArgument);
}

std::string PickleSays(const std::string& bytes) { return std::string(MessageOf(Pickle::Read(bytes).status())); }

TEST(HostileFilesTest, PicklesByHand) {
  EXPECT_THAT(PickleSays(""), HasSubstr("it is cut at byte 0"));
  EXPECT_THAT(PickleSays("\x80\x04"), HasSubstr("protocol 4 is not 2"));
  EXPECT_THAT(PickleSays("."), HasSubstr("its stack is empty"));
  EXPECT_THAT(PickleSays("t"), HasSubstr("it lacks a mark"));
  EXPECT_THAT(PickleSays("Na."), HasSubstr("its stack is empty"));
  EXPECT_THAT(PickleSays("NNs."), HasSubstr("its stack is empty"));
  EXPECT_THAT(PickleSays("h\x07."), HasSubstr("asks for what it has not kept"));
  EXPECT_THAT(PickleSays("X\xff\xff\xff\xff"), HasSubstr("it is cut"));
  EXPECT_THAT(PickleSays("i"), HasSubstr("opcode 105 is not read here"));
  EXPECT_THAT(PickleSays(std::string(1'500'000, 'N')), HasSubstr("more than 1000000 values"));
  EXPECT_THAT(PickleSays(std::string(1'000'000, '(')), HasSubstr("it is cut"));
  // A list that holds itself, and half a million tuples in each other: read, and let go of without recursion.
  EXPECT_EQ(PickleSays("]q\000h\000a."s), "");
  EXPECT_EQ(PickleSays(StrCat(")", std::string(500'000, '\x85'), ".")), "");
  // A call of os.system is data.
  const std::string bytes = "cos\nsystem\nX\x04\x00\x00\x00true\x85R."s;
  const auto call = Pickle::Read(bytes);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->root().kind, PickleValue::Kind::kObject);
  EXPECT_EQ(call->root().callable->text, "os\nsystem");
}

// A zip archive of one stored entry.
std::string ZipOf(const std::string& name, const std::string& bytes) {
  const auto number = [](uint64_t value, size_t size) {
    return std::string(reinterpret_cast<const char*>(&value), size);  // little-endian
  };
  const std::string sizes = number(0, 4) + number(bytes.size(), 4) + number(bytes.size(), 4) + number(name.size(), 2);
  const std::string local = "PK\3\4" + number(20, 2) + number(0, 8) + sizes + number(0, 2) + name;
  const std::string directory =
      "PK\1\2" + number(20, 2) + number(20, 2) + number(0, 8) + sizes + std::string(16, '\0') + name;
  const std::string end = "PK\5\6" + number(0, 4) + number(1, 2) + number(1, 2) + number(directory.size(), 4) +
                          number(local.size() + bytes.size(), 4) + number(0, 2);
  return local + bytes + directory + end;
}

// A long name or text that a pickle keeps once and names many times would take its length each time.
TEST(HostileFilesTest, NamesThatArePutTogetherAreBounded) {
  constexpr uint32_t kLong = 1 << 16;
  const std::string text =
      "X" + std::string(reinterpret_cast<const char*>(&kLong), 4) + std::string(kLong, 'a') + "q\0"s;
  const auto says = [&](const std::string& entry, const std::string& last) {
    std::string pickle = "\x80\2}(" + text + "N";
    for (int i = 0; i < 2000; ++i) pickle += entry;
    pickle += last + "u.";
    return std::string(MessageOf(TorchArchive::Open(Put("names.pt", ZipOf("a/data.pkl", pickle))).status()));
  };
  const std::string key = "h\0"s;
  EXPECT_THAT(says(key + "N", ""), HasSubstr("bytes of names"));                    // of what is no tensor
  EXPECT_THAT(says(key + "}U\1cNs", ""), HasSubstr("bytes of names"));              // of what is in it
  EXPECT_THAT(says("U\1b" + key, "U\5model}U\1cNs"), HasSubstr("bytes of names"));  // a text beside the weights
  EXPECT_THAT(says(key + "N", "U\5model}U\1cNs"), HasSubstr("bytes of names"));     // and its name
}

TEST(HostileFilesTest, TensorsBeyondTheirStorageAreRefused) {
  const std::string archive = *ReadFile(RankFile());
  // The word embedding's row count (128 = K\x80) in its shape tuple, enlarged.
  std::string bytes = archive;
  const size_t at = bytes.find("word_embeddings");
  ASSERT_NE(at, std::string::npos);
  const size_t shape = bytes.find("K\x80K@", at);
  ASSERT_NE(shape, std::string::npos);
  bytes[shape + 1] = '\x81';
  const auto opened = TorchArchive::Open(Put("z.pt", bytes));
  EXPECT_THAT(std::string(MessageOf(opened.status())), HasSubstr("shape [129, 64] does not fit"));
}

}  // namespace
}  // namespace retro
