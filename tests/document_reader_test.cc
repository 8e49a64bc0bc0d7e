#include "cli/document_reader.h"

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cli/document_json.h"
#include "common/base/strings.h"
#include "common/text/line_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace retro::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

std::string Gzip(const std::string& bytes) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&stream, bytes.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string Zstd(const std::string& bytes) {
  std::string packed(ZSTD_compressBound(bytes.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 3));
  return packed;
}

// Text that does not compress to nothing, so that cutting its compressed form cuts the text.
std::string Prose(size_t bytes) {
  std::string text;
  uint32_t state = 12345;
  while (text.size() < bytes) {
    state = state * 1664525 + 1013904223;
    text += StrCat("word", state >> 12, state % 11 == 0 ? ".\n\n" : " ");
  }
  return text;
}

class DocumentReaderTest : public testing::Test {
 protected:
  DocumentReaderTest() : folder_(fs::temp_directory_path() / StrCat("reader_test_", getpid())) {
    fs::create_directories(folder_);
  }
  ~DocumentReaderTest() override { fs::remove_all(folder_); }

  std::string Put(const std::string& name, const std::string& bytes) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }

  // All that comes out of a file.
  std::vector<Reading> Read(const std::string& path, uint64_t skip_to = 0) {
    const auto reader = OpenDocumentReader({path, FileKindOf(path), 0, 0}, options_);
    reader->SkipTo(skip_to);
    return Drain(*reader);
  }
  static std::vector<Reading> Drain(DocumentReader& reader) {
    std::vector<Reading> readings;
    while (auto reading = reader.Next()) readings.push_back(*std::move(reading));
    return readings;
  }
  // The problem that is all that comes out of it.
  std::string ProblemOf(const std::string& path) {
    const std::vector<Reading> readings = Read(path);
    if (readings.size() != 1 || readings[0].problem.ok()) return "no single problem";
    EXPECT_THAT(std::string(MessageOf(readings[0].problem)), HasSubstr(path));
    return std::string(MessageOf(readings[0].problem));
  }
  std::string TextOf(const std::string& path) {
    const std::vector<Reading> readings = Read(path);
    if (readings.size() != 1) return StrCat(readings.size(), " readings");
    if (!readings[0].problem.ok()) return std::string(MessageOf(readings[0].problem));
    return readings[0].write.document().text();
  }
  std::string TitleOf(const std::string& path) {
    const std::vector<Reading> readings = Read(path);
    return readings.empty() ? "nothing" : readings[0].write.document().title();
  }

  const fs::path folder_;
  ReaderOptions options_;
};

TEST_F(DocumentReaderTest, TextIsKeptByteForByte) {
  const std::string text = "Grüße,\r\n\r\n\tzwei  Absätze \xf0\x9f\x98\x80\n";
  const std::string path = Put("a.txt", text);
  const std::vector<Reading> readings = Read(path);
  ASSERT_THAT(readings, SizeIs(1));
  EXPECT_EQ(readings[0].write.document().text(), text);
  EXPECT_EQ(readings[0].write.document().id(), path);
  EXPECT_EQ(readings[0].write.document().source(), path);
  EXPECT_EQ(TextOf(Put("bom.txt", "\xef\xbb\xbf" + text)), text);
  EXPECT_EQ(TextOf(Put("a.txt.gz", Gzip(text))), text);
  EXPECT_EQ(TextOf(Put("two.txt.gz", Gzip("one ") + Gzip("two"))), "one two");
  EXPECT_EQ(TextOf(Put("a.txt.zst", Zstd(text))), text);
  EXPECT_EQ(TextOf(Put("two.txt.zst", Zstd("one ") + Zstd("two"))), "one two");
}

TEST_F(DocumentReaderTest, LongTextsBecomePartsAtParagraphs) {
  const std::string text = Prose(300'000);
  options_.part_bytes = 64 << 10;
  const std::string path = Put("long.txt.gz", Gzip(text));
  const std::vector<Reading> readings = Read(path);
  ASSERT_GT(readings.size(), 4U);
  std::string joined;
  for (size_t i = 0; i < readings.size(); ++i) {
    const auto& document = readings[i].write.document();
    EXPECT_EQ(document.id(), StrCat(path, "#", i + 1));
    EXPECT_EQ(document.source(), path);
    EXPECT_LE(document.text().size(), *options_.part_bytes);
    EXPECT_EQ(readings[i].ordinal, i);
    if (i + 1 < readings.size()) {
      EXPECT_THAT(document.text(), testing::EndsWith("\n\n"));
    }
    joined += document.text();
  }
  EXPECT_EQ(joined, text);
  const std::vector<Reading> rest = Read(path, 3);
  ASSERT_THAT(rest, SizeIs(readings.size() - 3));
  EXPECT_EQ(rest[0].write.document().id(), StrCat(path, "#4"));
}

TEST_F(DocumentReaderTest, TextWithoutAnyBorderIsCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "\xe2\x82\xac";
  options_.part_bytes = 1024;
  std::string joined;
  for (const Reading& reading : Read(Put("euro.txt", text))) {
    EXPECT_EQ(reading.write.document().text().size() % 3, 0U);
    joined += reading.write.document().text();
  }
  EXPECT_EQ(joined, text);
}

TEST_F(DocumentReaderTest, MarkdownTitleIsTheFirstHeading) {
  EXPECT_EQ(TitleOf(Put("a.md", "intro\n\n## The *title* ##\ntext\n# later\n")), "The *title*");
  EXPECT_EQ(TitleOf(Put("b.md", "Under\n=====\ntext")), "Under");
  EXPECT_EQ(TitleOf(Put("c.md", "```\n# not this\n```\n#tag\n# this\n")), "this");
  EXPECT_EQ(TitleOf(Put("d.md", "no heading at all\n")), "");
}

TEST_F(DocumentReaderTest, HtmlGivesVisibleTextInParagraphs) {
  const std::string page = R"(<!doctype html><html><head><title> The
      &Uuml;ber title </title><style>p { color: red }</style></head><body><nav><a href="/">Home</a></nav>
      <h1>Head<i>ing</i></h1><script>var x = "<p>no</p>";</script>
      <p>One   &amp; two&nbsp;&#x1F600;.<p>Unclosed <b>bold</b> end
      <ul><li>first</li><li>second</li></ul><table><tr><td>a</td><td>b</td></tr></table>
      <pre>  kept
   as is</pre><!-- comment --></body></html>)";
  const std::string path = Put("a.html", page);
  EXPECT_EQ(TextOf(path),
            "Heading\n\nOne & two\xc2\xa0\xf0\x9f\x98\x80.\n\nUnclosed bold end\n\nfirst\nsecond\n\na b\n\n"
            "  kept\n   as is");
  EXPECT_EQ(TitleOf(path), "The Über title");
}

TEST_F(DocumentReaderTest, HtmlEncodingsAreHeeded) {
  EXPECT_EQ(TextOf(Put("utf8.html", "<p>Grüße")), "Grüße");
  EXPECT_EQ(TextOf(Put("meta.html",
                       "<meta charset=iso-8859-1><p>Gr\xfc\xdf"
                       "e \x80")),
            "Grüße €");
  EXPECT_EQ(TextOf(Put("equiv.htm", "<META http-equiv=content-type content='text/html; charset=windows-1251'><p>\xcf")),
            "П");
  EXPECT_EQ(TextOf(Put("utf16.html", std::string("\xff\xfe<\0p\0>\0\xfc\0", 10))), "ü");
  EXPECT_THAT(TextOf(Put("bad.html",
                         "<p>Gr\xfc\xdf"
                         "e")),
              HasSubstr("no UTF-8 at byte 5"));
  EXPECT_THAT(TextOf(Put("odd.html", "<meta charset=klingon><p>x")), HasSubstr("'klingon' is not known"));
}

TEST_F(DocumentReaderTest, HtmlThatArrivesInManyPiecesIsTheSame) {
  std::string page = "<title>t</title>";
  std::string text;
  for (int i = 0; i < 20'000; ++i) {
    page += StrCat("<p>par", i, " <b>ü&lt;</b></p>\n");
    text += StrCat(i == 0 ? "" : "\n\n", "par", i, " ü<");
  }
  EXPECT_EQ(TextOf(Put("many.html.zst", Zstd(page))), text);
}

TEST_F(DocumentReaderTest, BadFilesAreOneProblemEach) {
  EXPECT_THAT(ProblemOf((folder_ / "missing.txt").string()), HasSubstr("No such file"));
  EXPECT_THAT(ProblemOf(Put("empty.txt", "")), HasSubstr("has no text"));
  EXPECT_THAT(ProblemOf(Put("blank.txt", " \n\n\t")), HasSubstr("has no text"));
  EXPECT_THAT(ProblemOf(Put("empty.jsonl", "")), HasSubstr("is empty"));
  EXPECT_THAT(ProblemOf(Put("script.html", "<script>x</script>")), HasSubstr("has no text"));
  EXPECT_THAT(ProblemOf(Put("binary.txt", std::string("\x7f"
                                                      "ELF\0\0",
                                                      6))),
              HasSubstr("binary"));
  EXPECT_THAT(ProblemOf(Put("latin.txt",
                            "Gr\xfc\xdf"
                            "e")),
              HasSubstr("no UTF-8 at byte 2"));
  EXPECT_THAT(ProblemOf(Put("overlong.txt", "ab\xc0\xaf")), HasSubstr("no UTF-8 at byte 2"));
  EXPECT_THAT(ProblemOf(Put("surrogate.txt", "\xed\xa0\x80")), HasSubstr("no UTF-8 at byte 0"));
  EXPECT_THAT(ProblemOf(Put("cut.txt", "ab\xe2\x82")), HasSubstr("no UTF-8 at byte 2"));
  EXPECT_THAT(ProblemOf(Put("fake.txt.gz", "not gzip at all")), HasSubstr("damaged"));
  EXPECT_THAT(ProblemOf(Put("fake.txt.zst", "not zstd at all")), HasSubstr("damaged"));
  EXPECT_THAT(ProblemOf(Put("zero.txt.gz", "")), HasSubstr("truncated"));
  EXPECT_THAT(ProblemOf(Put("zero.txt.zst", "")), HasSubstr("truncated"));
  EXPECT_THAT(ProblemOf(folder_.string() + "/."), HasSubstr("no regular file"));
}

TEST_F(DocumentReaderTest, NoPartOfATruncatedTextIsGiven) {
  options_.part_bytes = 16 << 10;
  const std::string gzip = Gzip(Prose(400'000));
  EXPECT_THAT(ProblemOf(Put("cut.txt.gz", gzip.substr(0, gzip.size() - 100))), HasSubstr("truncated"));
  const std::string zstd = Zstd(Prose(400'000));
  EXPECT_THAT(ProblemOf(Put("cut.txt.zst", zstd.substr(0, zstd.size() - 100))), HasSubstr("truncated"));
  EXPECT_THAT(ProblemOf(Put("late.txt", Prose(400'000) + "\xff")), HasSubstr("no UTF-8"));
}

TEST_F(DocumentReaderTest, OptionsConvertOtherEncodings) {
  options_.repair = true;
  EXPECT_EQ(TextOf(Put("latin.txt",
                       "Gr\xfc\xdf"
                       "e")),
            "Gr\xef\xbf\xbd\xef\xbf\xbd"
            "e");
  EXPECT_EQ(TextOf(Put("tail.txt", "ab\xe2\x82")), "ab\xef\xbf\xbd");
  options_.repair = false;
  options_.encoding = "latin-1";
  EXPECT_EQ(TextOf(Put("latin.txt",
                       "Gr\xfc\xdf"
                       "e")),
            "Grüße");
  EXPECT_EQ(TextOf(Put("marked.txt", "\xef\xbb\xbfGrüße")), "Grüße");
  const std::string jsonl = Put("latin.jsonl",
                                "{\"id\":\"a\",\"text\":\"Gr\xfc\xdf"
                                "e\"}\n");
  EXPECT_EQ(TextOf(jsonl), "Grüße");
  options_.encoding = "shift_jis";
  EXPECT_THAT(TextOf(Put("bad.txt", "ok \xff\xff")), HasSubstr("no shift_jis at byte 3"));
  options_.repair = true;
  EXPECT_EQ(TextOf(Put("bad.txt", "ok \xff")), "ok \xef\xbf\xbd");
}

TEST_F(DocumentReaderTest, JsonlGivesADocumentALine) {
  const std::string path =
      Put("a.jsonl",
          "\xef\xbb\xbf{\"id\":\"a\",\"title\":\"T\",\"text\":\"one\",\"source\":\"s\",\"year\":2020,"
          "\"metadata\":{\"lang\":[\"en\",\"de\"],\"score\":1.0,\"when\":{\"time\":\"1970-01-01T00:01:00Z\"}}}\r\n"
          "\n{\"text\":\"two\",\"ok\":true,\"none\":null}");
  const std::vector<Reading> readings = Read(path);
  ASSERT_THAT(readings, SizeIs(2));
  const auto& first = readings[0].write.document();
  EXPECT_EQ(first.id(), "a");
  EXPECT_EQ(first.title(), "T");
  EXPECT_EQ(first.source(), "s");
  EXPECT_EQ(first.metadata().at("year").values(0).int_value(), 2020);
  EXPECT_EQ(first.metadata().at("lang").values(1).string_value(), "de");
  EXPECT_TRUE(first.metadata().at("score").values(0).has_number_value());
  EXPECT_EQ(first.metadata().at("when").values(0).time_value().seconds(), 60);
  const auto& second = readings[1].write.document();
  EXPECT_EQ(second.id(), path + ":3");
  EXPECT_EQ(second.source(), path);
  EXPECT_EQ(second.metadata().at("ok").values(0).string_value(), "true");
  EXPECT_EQ(second.metadata().count("none"), 0U);
  EXPECT_EQ(readings[1].ordinal, 2U);
}

TEST_F(DocumentReaderTest, JsonlVectorsComeWithTheirFingerprint) {
  const auto readings =
      Read(Put("v.jsonl", R"({"id":"a","text":"x","vectors":[[1,2.5],[3,4]],"embedder_fingerprint":"00fF"})"));
  ASSERT_THAT(readings, SizeIs(1));
  ASSERT_EQ(readings[0].write.chunk_vectors_size(), 2);
  EXPECT_THAT(readings[0].write.chunk_vectors(0).values(), ElementsAre(1, 2.5));
  EXPECT_EQ(readings[0].write.embedder_fingerprint(), std::string("\x00\xff", 2));
  EXPECT_THAT(ProblemOf(Put("w.jsonl", R"({"text":"x","vectors":[["a"]]})")), HasSubstr("\"vectors\" must be"));
  EXPECT_THAT(ProblemOf(Put("f.jsonl", R"({"text":"x","embedder_fingerprint":"0g"})")), HasSubstr("hexadecimal"));
}

TEST_F(DocumentReaderTest, BadLinesAreSkippedAndReadingGoesOn) {
  const std::string path =
      Put("bad.jsonl",
          "{\"text\":\"one\"}\nnot json\n[1]\n{\"title\":\"no text\"}\n{\"text\":\"\"}\n{\"text\":5}\n"
          "{\"text\":\"Gr\xfc\"}\n{\"text\":\"x\",\"deep\":{\"a\":{}}}\n{\"text\":\"last\"}\n");
  std::vector<std::string> problems;
  std::vector<std::string> texts;
  for (const Reading& reading : Read(path)) {
    if (reading.problem.ok()) texts.push_back(reading.write.document().text());
    if (!reading.problem.ok()) problems.emplace_back(MessageOf(reading.problem));
  }
  EXPECT_THAT(texts, ElementsAre("one", "last"));
  EXPECT_THAT(problems,
              ElementsAre(AllOf(StartsWith(path + ":2: "), HasSubstr("no JSON")),
                          HasSubstr(":3: the line is no JSON object"), HasSubstr(":4: field \"text\" is missing"),
                          HasSubstr(":5: field \"text\" is empty"), HasSubstr(":6: field \"text\" must be a text"),
                          HasSubstr(":7: the line is no UTF-8"), HasSubstr(":8: field \"deep\" is no metadata")));
}

TEST_F(DocumentReaderTest, ATooLongLineIsSkipped) {
  std::string long_text;
  long_text.resize(100'000'000, 'x');
  const std::string path =
      Put("long.jsonl.gz", Gzip("{\"text\":\"a\"}\n{\"text\":\"" + long_text + "\"}\n{\"text\":\"b\"}\n"));
  const auto readings = Read(path);
  ASSERT_THAT(readings, SizeIs(3));
  EXPECT_EQ(readings[0].write.document().text(), "a");
  EXPECT_THAT(std::string(MessageOf(readings[1].problem)), HasSubstr(":2: the line has 100000011 bytes"));
  EXPECT_EQ(readings[2].write.document().text(), "b");
}

TEST_F(DocumentReaderTest, WhatIsBeforeATruncationIsGivenForJsonl) {
  std::string lines;
  for (int i = 0; i < 20'000; ++i) lines += StrCat("{\"id\":\"", i, "\",\"text\":\"", i * 7919 % 104729, "\"}\n");
  const std::string gzip = Gzip(lines);
  const auto readings = Read(Put("cut.jsonl.gz", gzip.substr(0, gzip.size() / 2)));
  ASSERT_GT(readings.size(), 1000U);
  EXPECT_THAT(std::string(MessageOf(readings.back().problem)), HasSubstr("truncated"));
  for (size_t i = 0; i + 1 < readings.size(); ++i) ASSERT_TRUE(readings[i].problem.ok()) << readings[i].problem;
}

TEST_F(DocumentReaderTest, LongJsonlDocumentsAreCutOnlyAboveTheServersBound) {
  const std::string line = "{\"id\":\"d\",\"text\":\"" + std::string(3 << 20, 'a') + "\"}\n";
  EXPECT_THAT(Read(Put("three.jsonl", line)), SizeIs(1));
  const std::string big = "{\"id\":\"d\",\"text\":\"" + std::string(9 << 20, 'a') + "\"}\n";
  const auto readings = Read(Put("nine.jsonl", big));
  ASSERT_THAT(readings, SizeIs(2));
  EXPECT_EQ(readings[0].write.document().id(), "d#1");
  EXPECT_EQ(readings[1].write.document().id(), "d#2");
  EXPECT_EQ(readings[0].ordinal, readings[1].ordinal);
  EXPECT_FALSE(readings[0].last_of_ordinal);
  EXPECT_TRUE(readings[1].last_of_ordinal);
}

TEST_F(DocumentReaderTest, DefaultMetadataDoesNotOverride) {
  ASSERT_TRUE(AddMetadata("lang=en", &options_.metadata).ok());
  ASSERT_TRUE(AddMetadata("year:=[1, 2.5]", &options_.metadata).ok());
  EXPECT_FALSE(AddMetadata("nothing", &options_.metadata).ok());
  EXPECT_FALSE(AddMetadata("bad:={", &options_.metadata).ok());
  const auto readings = Read(Put("m.jsonl", R"({"text":"x","lang":"de"})"));
  ASSERT_THAT(readings, SizeIs(1));
  EXPECT_EQ(readings[0].write.document().metadata().at("lang").values(0).string_value(), "de");
  EXPECT_EQ(readings[0].write.document().metadata().at("year").values(0).int_value(), 1);
  EXPECT_EQ(readings[0].write.document().metadata().at("year").values(1).number_value(), 2.5);
}

TEST_F(DocumentReaderTest, ExportedLinesAreReadBackAsTheyWere) {
  const auto first = ParseDocumentJson(
      R"({"id":"a","title":"","source":"","text":"x\ny","external_version":7,"metadata":{"n":3,"f":3.0,"t":{"time":"2020-01-01T00:00:00Z"},"l":["a","b"]}})");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->has_source);
  const auto second = ParseDocumentJson(DocumentToJson(first->write.document()));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->write.document().SerializeAsString().size(), first->write.document().SerializeAsString().size());
  EXPECT_EQ(second->write.document().ShortDebugString(), first->write.document().ShortDebugString());
}

TEST_F(DocumentReaderTest, StandardInputIsJsonl) {
  std::istringstream stream("{\"text\":\"one\"}\n{oops\n");
  const auto readings = Drain(*JsonlStreamReader(stream, options_));
  ASSERT_THAT(readings, SizeIs(2));
  EXPECT_EQ(readings[0].write.document().id(), "stdin:1");
  EXPECT_THAT(std::string(MessageOf(readings[1].problem)), StartsWith("standard input:2: "));
}

TEST_F(DocumentReaderTest, FoldersAreWalkedInOrderWithoutHiddenFilesAndLinks) {
  for (const char* name : {"b.txt", "a.md", "sub/c.HTML.gz", "sub/d.bin", ".hidden.txt", ".git/e.txt", "skip.txt"})
    Put(name, "x");
  fs::create_symlink(folder_, folder_ / "sub" / "loop");
  fs::create_symlink(folder_ / "b.txt", folder_ / "link.txt");
  const std::string root = folder_.string();
  WalkOptions options;
  options.exclude = {"skip*"};
  const WalkResult walked =
      WalkFiles({root + "//./", root + "/link.txt", root + "/none.txt", root + "/sub/d.bin"}, options);
  std::vector<std::string> paths;
  paths.reserve(walked.files.size());
  for (const InputFile& file : walked.files) paths.push_back(file.path.substr(root.size()));
  EXPECT_THAT(paths, ElementsAre("/a.md", "/b.txt", "/sub/c.HTML.gz", "/link.txt"));
  ASSERT_THAT(walked.problems, SizeIs(2));
  EXPECT_THAT(std::string(MessageOf(walked.problems[0])), HasSubstr("no such file"));
  EXPECT_THAT(std::string(MessageOf(walked.problems[1])), HasSubstr("nothing known"));
  options.include = {"*/sub/*"};
  EXPECT_THAT(WalkFiles({root}, options).files, SizeIs(1));
}

}  // namespace
}  // namespace retro::cli
