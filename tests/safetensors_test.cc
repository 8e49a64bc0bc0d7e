#include "common/safetensors/safetensors.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace retro {
namespace {

using ::testing::HasSubstr;

std::string TestPath(const std::string& name) { return absl::StrCat(::testing::TempDir(), "/", name, ".safetensors"); }

// A file with this header and `data_size` bytes behind it.
std::string FileBytes(const std::string& header, size_t data_size) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_size, 'x');
}

absl::Status OpenBytes(const std::string& bytes) {
  const std::string path = TestPath("malformed");
  if (absl::Status written = WriteFileAtomically(path, bytes); !written.ok()) return written;
  return SafetensorsFile::Open(path).status();
}

void ExpectMalformed(const std::string& header, size_t data_size, const std::string& why) {
  const absl::Status status = OpenBytes(FileBytes(header, data_size));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << header;
  EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << header;
  EXPECT_THAT(std::string(status.message()), HasSubstr("malformed.safetensors")) << header;
}

std::vector<NamedTensor> SampleTensors() {
  static const std::vector<float> floats = {1.5f, -2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
  static const std::vector<int64_t> ids = {7, -8};
  return {{"b.floats", {DType::kF32, {2, 3}, {reinterpret_cast<const char*>(floats.data()), 24}}},
          {"a.ids", {DType::kI64, {2}, {reinterpret_cast<const char*>(ids.data()), 16}}},
          {"c.flags", {DType::kU8, {3}, std::string_view("\x01\x00\x01", 3)}},
          {"d.none", {DType::kF16, {0, 4}, {}}}};
}

TEST(SafetensorsTest, RoundTrip) {
  std::vector<NamedTensor> tensors = SampleTensors();
  const std::string path = TestPath("round_trip");
  ASSERT_TRUE(WriteSafetensors(path, tensors, {{"format", "test"}, {"ünïcode", "ÿ"}}).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("format"), "test");
  EXPECT_EQ(file->metadata().at("ünïcode"), "ÿ");
  ASSERT_EQ(file->tensors().size(), tensors.size());
  for (const NamedTensor& written : tensors) {
    const auto read = file->Find(written.name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->dtype, written.tensor.dtype);
    EXPECT_EQ(read->shape, written.tensor.shape);
    EXPECT_EQ(read->bytes, written.tensor.bytes);
  }
  EXPECT_EQ(file->Find("nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST(SafetensorsTest, EqualContentGivesEqualBytesInAnyOrder) {
  std::vector<NamedTensor> tensors = SampleTensors();
  ASSERT_TRUE(WriteSafetensors(TestPath("one"), tensors, {}).ok());
  std::swap(tensors[0], tensors[3]);
  ASSERT_TRUE(WriteSafetensors(TestPath("two"), tensors, {}).ok());
  EXPECT_EQ(*ReadFile(TestPath("one")), *ReadFile(TestPath("two")));
}

TEST(SafetensorsTest, WriterRefusesWhatItCouldNotReadBack) {
  std::vector<NamedTensor> tensors = SampleTensors();
  tensors[1].name = tensors[0].name;
  EXPECT_EQ(WriteSafetensors(TestPath("twice"), tensors, {}).code(), absl::StatusCode::kInvalidArgument);
  tensors = SampleTensors();
  tensors[0].tensor.shape = {2, 4};
  EXPECT_EQ(WriteSafetensors(TestPath("misfit"), tensors, {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SafetensorsTest, MalformedHeadersNameFileAndTensor) {
  ExpectMalformed("", 0, "not a JSON object");
  ExpectMalformed("[]", 0, "not a JSON object");
  ExpectMalformed("{\"a\":", 0, "not a JSON object");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[1]}})", 4, "'a'");
  ExpectMalformed(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, "unknown dtype 'F33'");
  ExpectMalformed(R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4, "dtype is not a string");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "not a size");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "not a size");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "does not fit its 4 bytes");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "not within the file");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3, "not within the file");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 8, "not a pair of offsets");
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "1 bytes belong to no tensor");
  // 2^31 * 2^31 * 4 = 2^64, which is 0 in 64 bits.
  ExpectMalformed(R"({"a":{"dtype":"F32","shape":[2147483648,2147483648],"data_offsets":[0,0]}})", 0, "does not fit");
  ExpectMalformed(
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3,
      "overlap");
  ExpectMalformed(
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4,
      "gap");
  ExpectMalformed(
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2,
      "occurs twice");
  ExpectMalformed(R"({"__metadata__":{"k":1}})", 0, "'k' is not a string");
}

TEST(SafetensorsTest, AbsurdLengthsAndCutFiles) {
  EXPECT_EQ(OpenBytes("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenBytes("1234567").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenBytes(std::string(8, '\xff')).code(), absl::StatusCode::kInvalidArgument);
  const std::string whole = FileBytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  ASSERT_TRUE(OpenBytes(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(OpenBytes(whole.substr(0, size)).code(), absl::StatusCode::kInvalidArgument) << size;
  }
  EXPECT_EQ(SafetensorsFile::Open(TestPath("absent")).status().code(), absl::StatusCode::kNotFound);
}

TEST(SafetensorsTest, FlippedHeaderBytesNeverCrash) {
  const std::string whole =
      FileBytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}})", 8);
  for (size_t i = 0; i < whole.size() - 8; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = whole;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      const absl::Status status = OpenBytes(flipped);
      EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << i << " " << status;
    }
  }
}

TEST(SafetensorsTest, ShapeString) { EXPECT_EQ(ShapeString(std::vector<int64_t>{3, 16}), "[3, 16]"); }

}  // namespace
}  // namespace retro
