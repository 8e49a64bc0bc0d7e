// `retro ingest` against a fake retriever: what is sent and said, what stays in the store when texts are cut otherwise
// than before, and documents that the server cannot take just now.
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cli/document_reader.h"
#include "cli/exit_code.h"
#include "cli/interrupt.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/time_util.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/cli_fixture.h"

namespace retro::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class CliIngestTest : public CliTest {
 protected:
  // The exit code; what was printed is in out_ and err_.
  int Ingest(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "ingest");
    Result result = Run(arguments);
    out_ = std::move(result.out);
    err_ = std::move(result.err);
    return result.code;
  }
  // A run with parts of 1 KiB that must succeed.
  void IngestInParts(const std::string& path) { ASSERT_EQ(Ingest({path, "--part-bytes", "1024"}), kOk) << err_; }

  // A text that is cut into so many parts of 1 KiB.
  static std::string TextOf(int parts) {
    std::string text;
    for (int i = 0; i < parts; ++i) text += std::string(1000, static_cast<char>('a' + i)) + "\n\n";
    return text;
  }
  static std::string Line(const std::string& id, const std::string& text) {
    return nlohmann::json{{"id", id}, {"text", text}}.dump() + "\n";
  }
  void StorePart(const std::string& document, int number) {
    const std::string id = PartId(document, static_cast<uint64_t>(number));
    pb::Document& part = retriever_.documents[id];
    part.set_id(id);
    (*part.mutable_metadata())[kPartOfKey].add_values()->set_string_value(document);
  }
  std::vector<std::string> StoredIds() const {
    std::vector<std::string> ids;
    ids.reserve(retriever_.documents.size());
    for (const auto& [id, document] : retriever_.documents) ids.push_back(id);
    return ids;
  }
  size_t SentCount() const {
    size_t count = 0;
    for (const auto& stream : retriever_.streams) count += stream.size();
    return count;
  }

  std::string out_;
  std::string err_;
};

// ---------------------------------------------------------------- what is sent and said

TEST_F(CliIngestTest, IngestSendsDocumentsAndSumsUp) {
  const std::string text = Put("a.txt", "some text");
  const std::string lines = PutDocuments("b.jsonl", 3);
  retriever_.documents["d1"].set_text("text 1");
  retriever_.documents["d2"].set_text("an older text");
  const Result result = Run({"ingest", text, lines, "--collection", "c", "--metadata", "lang=en"});
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_THAT(result.out, HasSubstr("2 created, 1 replaced, 1 unchanged, 0 failed, 0 skipped; 8 chunks"));
  EXPECT_EQ(retriever_.collection, "c");
  EXPECT_THAT(retriever_.streams, ElementsAre(ElementsAre(text, "d0", "d1", "d2")));
  EXPECT_EQ(retriever_.documents[text].metadata().at("lang").values(0).string_value(), "en");
}

TEST_F(CliIngestTest, IngestReportsWhatItSkipsAndGoesOn) {
  const std::string bad = Put("bad.jsonl", "{oops\n{\"id\":\"good\",\"text\":\"x\"}\n");
  const Result result =
      Run({"ingest", (folder_ / "missing.txt").string(), Put("binary.txt", std::string("a\0", 2)), bad});
  EXPECT_EQ(result.code, kFailed);
  EXPECT_THAT(result.err, AllOf(HasSubstr("skipped: " + (folder_ / "missing.txt").string()), HasSubstr("binary"),
                                HasSubstr(bad + ":1: the line is no JSON")));
  EXPECT_THAT(result.out, HasSubstr("1 created, 0 replaced, 0 unchanged, 0 failed, 3 skipped"));
}

TEST_F(CliIngestTest, IngestReportsRefusedDocuments) {
  retriever_.refused_id = "d1";
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 3)});
  EXPECT_EQ(result.code, kFailed);
  EXPECT_THAT(result.err, HasSubstr("failed: d1: the text is odd (reason INVALID_FIELD, field document.text)"));
  EXPECT_THAT(result.out, HasSubstr("2 created, 0 replaced, 0 unchanged, 1 failed"));
}

TEST_F(CliIngestTest, IngestPrintsJson) {
  retriever_.refused_id = "d1";
  const Result result = Run({"ingest", "--json", PutDocuments("a.jsonl", 2), Put("empty.txt", "")});
  EXPECT_EQ(result.code, kFailed);
  std::istringstream lines(result.out);
  std::map<std::string, nlohmann::json> events;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    events[json["event"]] = json;
  }
  EXPECT_EQ(events["failed"]["id"], "d1");
  EXPECT_THAT(events["skipped"]["message"].get<std::string>(), HasSubstr("no text"));
  EXPECT_EQ(events["summary"]["created"], 1);
  EXPECT_EQ(events["summary"]["complete"], true);
}

TEST_F(CliIngestTest, IngestReadsStandardInput) {
  const Result result = Run({"ingest", "-"}, "{\"id\":\"a\",\"text\":\"x\"}\n");
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_EQ(retriever_.documents.count("a"), 1U);
}

TEST_F(CliIngestTest, IngestFillsItsWindowAndDoesNotExceedIt) {
  // The fake acknowledges nothing until 8 wait: a smaller window would stall, a larger one is seen below.
  retriever_.acknowledge_at = 8;
  retriever_.expected_documents = 50;
  EXPECT_EQ(Run({"ingest", PutDocuments("a.jsonl", 50), "--window", "8", "--timeout", "10"}).code, kOk);
  EXPECT_EQ(retriever_.documents.size(), 50U);
  EXPECT_EQ(retriever_.waiting_max, 8U);

  retriever_.documents.clear();
  retriever_.acknowledge_at = 9;  // never reached with a window of 8
  const Result stalled = Run({"ingest", PutDocuments("a.jsonl", 50), "--window", "8", "--timeout", "0.3"});
  EXPECT_EQ(stalled.code, kFailed);
  EXPECT_THAT(stalled.err, HasSubstr("8 documents were sent and not acknowledged"));
  EXPECT_EQ(retriever_.waiting_max, 8U);
}

TEST_F(CliIngestTest, ABrokenStreamIsOpenedAgainAndTheRestSentAgain) {
  retriever_.acknowledgements_until_break = 3;
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 10), "--window", "4"});
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_THAT(result.out, HasSubstr("10 created, 0 replaced, 0 unchanged"));
  ASSERT_THAT(retriever_.streams, SizeIs(2));
  EXPECT_THAT(retriever_.streams[1], ElementsAre("d3", "d4", "d5", "d6", "d7", "d8", "d9"));
}

TEST_F(CliIngestTest, TriesAreBounded) {
  retriever_.acknowledgements_until_break = 0;
  retriever_.breaks_left = 1;
  retriever_.break_status = {grpc::StatusCode::INVALID_ARGUMENT, "never again"};
  EXPECT_EQ(Run({"ingest", PutDocuments("a.jsonl", 2)}).code, kFailed);
  EXPECT_THAT(retriever_.streams, SizeIs(1));

  retriever_.break_status = {grpc::StatusCode::UNAVAILABLE, "gone"};
  retriever_.acknowledgements_until_break = 0;
  retriever_.breaks_left = 1;
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 2), "--retries", "0"});
  EXPECT_EQ(result.code, kUnreachable);
  EXPECT_THAT(retriever_.streams, SizeIs(2));
  EXPECT_THAT(result.err, HasSubstr("run the same command again"));
}

TEST_F(CliIngestTest, AnInterruptedRunGoesOnWhereItWas) {
  const std::string file = PutDocuments("a.jsonl", 10);
  const std::string resume = (folder_ / "resume").string();
  const std::vector<std::string> command = {"ingest", file, "--resume-file", resume, "--retries", "0", "--window", "1"};
  retriever_.acknowledgements_until_break = 4;
  EXPECT_EQ(Run(command).code, kUnreachable);
  std::ofstream(resume, std::ios::app) << R"({"target": "cut li)";
  const Result second = Run(command);
  EXPECT_EQ(second.code, kOk) << second.err;
  EXPECT_THAT(second.err, HasSubstr("went on in 1 files"));
  ASSERT_THAT(retriever_.streams, SizeIs(2));
  EXPECT_THAT(retriever_.streams[1], ElementsAre("d4", "d5", "d6", "d7", "d8", "d9"));
  EXPECT_EQ(retriever_.documents.size(), 10U);

  EXPECT_EQ(Run(command).code, kOk);  // all is done: nothing is sent
  EXPECT_THAT(retriever_.streams, SizeIs(2));
  retriever_.store_id = "another store";
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(retriever_.streams.back(), SizeIs(10));
  std::ofstream(file, std::ios::app) << "{\"id\":\"d10\",\"text\":\"new\"}\n";  // a changed file starts afresh
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(retriever_.streams.back(), SizeIs(11));
}

TEST_F(CliIngestTest, ARefusedDocumentIsTriedAgainByTheNextRun) {
  const std::vector<std::string> command = {"ingest", PutDocuments("a.jsonl", 4), "--resume-file",
                                            (folder_ / "resume").string()};
  retriever_.refused_id = "d2";
  EXPECT_EQ(Run(command).code, kFailed);
  retriever_.refused_id = "";
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(retriever_.streams.back(), ElementsAre("d2", "d3"));
}

// What the last run was told to leave out, or to write otherwise, is not done.
TEST_F(CliIngestTest, AnotherWayOfReadingStartsAfresh) {
  const std::string file = Put("a.jsonl", Line("d0", "a") + "{\"id\":\"d1\",\"text\":\"b\xff\"}\n" + Line("d2", "c"));
  std::vector<std::string> command = {"ingest", file, "--resume-file", (folder_ / "resume").string()};
  EXPECT_EQ(Run(command).code, kFailed) << "the second line is no UTF-8";
  command.emplace_back("--repair");
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(retriever_.streams.back(), ElementsAre("d0", "d1", "d2"));
  command.insert(command.end(), {"--metadata", "lang=en"});
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(retriever_.streams.back(), SizeIs(3));
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(retriever_.streams, SizeIs(3)) << "nothing is left to do";
}

TEST_F(CliIngestTest, AForeignResumeFileIsRefused) {
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 1), "--resume-file", Put("notes.txt", "my notes\n")});
  EXPECT_EQ(result.code, kUsage);
  EXPECT_THAT(result.err, HasSubstr("is no resume file"));
  EXPECT_THAT(retriever_.streams, IsEmpty());
}

TEST_F(CliIngestTest, CtrlCEndsAnIngestAndSaysWhatIsIn) {
  retriever_.on_document = [](const pb::IngestRequest& request) {
    if (request.write().document().id() == "d5") Interrupt();
  };
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 100), "--window", "1"});
  EXPECT_EQ(result.code, kInterrupted);
  EXPECT_THAT(result.err, HasSubstr("interrupted"));
  EXPECT_THAT(result.out, HasSubstr("5 created"));
}

// ---------------------------------------------------------------- parts

TEST_F(CliIngestTest, ATextThatGrowsAndShrinksIsStoredInItsCurrentPartsAlone) {
  const std::string path = Put("a.txt", TextOf(1));
  const auto part = [&path](int number) { return StrCat(path, "#", number); };
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(path));
  Put("a.txt", TextOf(4));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(part(1), part(2), part(3), part(4)));
  EXPECT_THAT(out_, HasSubstr("4 created, 0 replaced, 0 unchanged, 0 failed, 0 skipped, 1 old parts deleted"));
  Put("a.txt", TextOf(2));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(part(1), part(2)));
  EXPECT_THAT(out_, HasSubstr("2 unchanged, 0 failed, 0 skipped, 2 old parts deleted"));
  Put("a.txt", TextOf(1));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(path));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(path));
  EXPECT_THAT(out_, AllOf(HasSubstr("1 unchanged"), Not(HasSubstr("old parts"))));
}

TEST_F(CliIngestTest, DocumentsInJsonlToo) {
  const std::string path = Put("a.jsonl", Line("x", TextOf(3)) + Line("y", TextOf(1)));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre("x#1", "x#2", "x#3", "y"));
  Put("a.jsonl", Line("x", TextOf(1)) + Line("y", TextOf(2)));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre("x", "y#1", "y#2"));
}

TEST_F(CliIngestTest, ADocumentThatIsOnlyCalledLikeAPartStays) {
  const std::string lines = Line("x", TextOf(1)) + Line("x#1", "another one") + Line("x#2", "and another");
  const std::string path = Put("a.jsonl", lines);
  IngestInParts(path);
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre("x", "x#1", "x#2"));
}

TEST_F(CliIngestTest, OfEqualIdsInOneRunTheLaterIsStoredAlone) {
  IngestInParts(Put("a.jsonl", Line("x", TextOf(3)) + Line("x", TextOf(1))));
  EXPECT_THAT(StoredIds(), ElementsAre("x"));
  IngestInParts(Put("b.jsonl", Line("x", TextOf(1)) + Line("x", TextOf(2))));
  EXPECT_THAT(StoredIds(), ElementsAre("x#1", "x#2"));
}

TEST_F(CliIngestTest, OldPartsStayAsLongAsANewOneIsNotStored) {
  const std::string path = Put("a.txt", TextOf(1));
  IngestInParts(path);
  Put("a.txt", TextOf(3));
  retriever_.refused_id = path + "#2";
  EXPECT_EQ(Ingest({path, "--part-bytes", "1024"}), kFailed);
  EXPECT_THAT(StoredIds(), ElementsAre(path, path + "#1", path + "#3"));
  retriever_.refused_id.clear();
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(path + "#1", path + "#2", path + "#3"));
}

TEST_F(CliIngestTest, OldPartsThatCannotBeDeletedAreToldAndTriedAgainByTheNextRun) {
  const std::string path = Put("a.txt", TextOf(1));
  IngestInParts(path);
  Put("a.txt", TextOf(2));
  retriever_.delete_failure =
      ToGrpcStatus(Error(absl::StatusCode::kResourceExhausted, Reason::kReadOnly, "the disk is full"));
  const std::vector<std::string> command = {path, "--part-bytes", "1024", "--resume-file",
                                            (folder_ / "resume").string()};
  EXPECT_EQ(Ingest(command), kFailed);
  EXPECT_THAT(err_, AllOf(HasSubstr("old parts"), HasSubstr("run the same command again"), HasSubstr("disk is full")));
  retriever_.delete_failure = grpc::Status::OK;
  EXPECT_EQ(Ingest(command), kOk) << err_;
  EXPECT_THAT(StoredIds(), ElementsAre(path + "#1", path + "#2"));
}

TEST_F(CliIngestTest, WhileTheRetrieverIsAwayOldPartsAreTriedAgain) {
  const std::string path = Put("a.txt", TextOf(1));
  IngestInParts(path);
  Put("a.txt", TextOf(2));
  retriever_.delete_failure = {grpc::StatusCode::UNAVAILABLE, "gone"};
  retriever_.delete_failures_left = 3;
  EXPECT_EQ(Ingest({path, "--part-bytes", "1024", "--retries", "1"}), kFailed);
  EXPECT_EQ(retriever_.delete_failures_left, 1);
  EXPECT_THAT(StoredIds(), ElementsAre(path, path + "#1", path + "#2"));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(path + "#1", path + "#2"));
}

// As gRPC itself says it: while it stops, and while it has no memory for messages.
TEST_F(CliIngestTest, SoTheyAreWhileItStopsOrHasNoMemory) {
  const std::string path = Put("a.txt", TextOf(1));
  for (const grpc::StatusCode code : {grpc::StatusCode::CANCELLED, grpc::StatusCode::RESOURCE_EXHAUSTED}) {
    Put("a.txt", TextOf(1));
    IngestInParts(path);
    Put("a.txt", TextOf(2));
    retriever_.delete_failure = {code, ""};
    retriever_.delete_failures_left = 1;
    IngestInParts(path);
    EXPECT_THAT(StoredIds(), ElementsAre(path + "#1", path + "#2"));
  }
}

TEST_F(CliIngestTest, CtrlCEndsTheTriesToo) {
  const std::string path = Put("a.txt", TextOf(1));
  IngestInParts(path);
  Put("a.txt", TextOf(2));
  retriever_.delete_failure = {grpc::StatusCode::UNAVAILABLE, "gone"};
  retriever_.on_delete_failure = [] { Interrupt(); };
  EXPECT_EQ(Ingest({path, "--part-bytes", "1024", "--retries", "1000", "--json"}), kInterrupted);
  EXPECT_THAT(err_, AllOf(HasSubstr("old parts"), HasSubstr("interrupted"), HasSubstr("run the same command again")));
  EXPECT_THAT(out_, HasSubstr("\"complete\":false"));
}

TEST_F(CliIngestTest, OldPartsBehindOneThatWasRefusedAreDeletedToo) {
  const std::string path = Put("a.txt", TextOf(4));
  retriever_.refused_id = path + "#2";
  EXPECT_EQ(Ingest({path, "--part-bytes", "1024"}), kFailed);
  EXPECT_THAT(StoredIds(), ElementsAre(path + "#1", path + "#3", path + "#4"));
  retriever_.refused_id.clear();
  Put("a.txt", TextOf(1));
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(path));
  EXPECT_THAT(out_, HasSubstr("3 old parts deleted"));
}

// Of each deletion one shard has done its share, and the other has not.
TEST_F(CliIngestTest, WhatADeletionThatFailedHalfwayHasLeftIsFoundByTheNextRun) {
  const std::string path = Put("a.txt", TextOf(6));
  const auto part = [&path](int number) { return StrCat(path, "#", number); };
  IngestInParts(path);
  Put("a.txt", TextOf(2));
  retriever_.undeletable = {part(5)};
  EXPECT_EQ(Ingest({path, "--part-bytes", "1024", "--retries", "0"}), kFailed);
  EXPECT_THAT(err_, AllOf(HasSubstr("old parts"), HasSubstr("run the same command again"), HasSubstr("is away")));
  EXPECT_THAT(StoredIds(), ElementsAre(part(1), part(2), part(3), part(4), part(5)));
  retriever_.undeletable = {part(4)};
  EXPECT_EQ(Ingest({path, "--part-bytes", "1024", "--retries", "0"}), kFailed);
  EXPECT_THAT(StoredIds(), ElementsAre(part(1), part(2), part(4)));
  retriever_.undeletable.clear();
  IngestInParts(path);
  EXPECT_THAT(StoredIds(), ElementsAre(part(1), part(2)));
}

TEST_F(CliIngestTest, OldPartsAreDeletedHoweverManyThereAre) {
  for (int number = 1; number <= 1100; ++number) StorePart("x", number);
  retriever_.documents["x#1101"].set_text("is only called like a part");
  EXPECT_EQ(Ingest({Put("a.jsonl", Line("x", "short"))}), kOk) << err_;
  EXPECT_THAT(StoredIds(), ElementsAre("x", "x#1101"));
  EXPECT_EQ(retriever_.get_calls, 1101);
}

TEST_F(CliIngestTest, OneDocumentsOldPartCostsNoCallForEachOther) {
  StorePart("d450", 2);
  std::string lines;
  for (int i = 0; i < 900; ++i) lines += Line(StrCat("d", i), "text");
  EXPECT_EQ(Ingest({Put("a.jsonl", lines)}), kOk) << err_;
  EXPECT_THAT(StoredIds(), SizeIs(900));
  EXPECT_EQ(retriever_.get_calls, 2);
  EXPECT_LE(retriever_.delete_requests.size(), 40U);
}

TEST_F(CliIngestTest, LookingForOldPartsIsOneCallForManyDocuments) {
  std::string lines;
  for (int i = 0; i < 900; ++i) lines += Line(StrCat("d", i), "text");
  EXPECT_EQ(Ingest({Put("a.jsonl", lines)}), kOk) << err_;
  EXPECT_LE(retriever_.delete_requests.size(), 5U);  // one a second at most, on a slow machine
  for (const auto& request : retriever_.delete_requests) EXPECT_TRUE(request.dry_run());
}

// ---------------------------------------------------------------- documents that fail for the moment

TEST_F(CliIngestTest, ADocumentThatTheServerCannotTakeNowIsSentAgainInTheSameRun) {
  retriever_.failing = {{"d1", 2}};
  const std::string path = Put("a.jsonl", Line("d0", "a") + Line("d1", "b") + Line("d2", "c"));
  EXPECT_EQ(Ingest({path, "--json"}), kOk) << err_;
  EXPECT_THAT(StoredIds(), ElementsAre("d0", "d1", "d2"));
  EXPECT_THAT(retriever_.streams, ElementsAre(ElementsAre("d0", "d1", "d2", "d1", "d1")));
  const nlohmann::json summary = nlohmann::json::parse(out_);
  EXPECT_EQ(summary["created"], 3);
  EXPECT_EQ(summary["failed"], 0);
  EXPECT_EQ(summary["retries"], 2);
  EXPECT_EQ(summary["reconnects"], 0);
}

TEST_F(CliIngestTest, TheTriesOfADocumentAreBoundedAndThenItIsReported) {
  retriever_.failing = {{"d1", 1000}};
  const std::string path = Put("a.jsonl", Line("d0", "a") + Line("d1", "b") + Line("d2", "c"));
  EXPECT_EQ(Ingest({path, "--retries", "2"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("failed: d1: shard 1 is away (reason SHARD_UNAVAILABLE); tried 3 times: run the same "
                              "command again later"));
  EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
  EXPECT_THAT(out_, HasSubstr("2 created, 0 replaced, 0 unchanged, 1 failed"));
  EXPECT_EQ(SentCount(), 5U);
}

TEST_F(CliIngestTest, AFullQueueIsTriedAgainAndAFullDiskIsNot) {
  retriever_.failing_error.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  retriever_.failing = {{"d", 1}};
  const std::string path = Put("a.jsonl", Line("d", "a"));
  EXPECT_EQ(Ingest({path}), kFailed);
  EXPECT_EQ(SentCount(), 1U);
  *retriever_.failing_error.mutable_retry_delay() = google::protobuf::util::TimeUtil::MillisecondsToDuration(1);
  retriever_.failing = {{"d", 1}};
  EXPECT_EQ(Ingest({path}), kOk) << err_;
  EXPECT_EQ(SentCount(), 3U);
}

TEST_F(CliIngestTest, ALaterDocumentOfTheSameIdIsNotOverwrittenByAnEarlierOnesRetry) {
  retriever_.failing = {{"x", 1}};
  EXPECT_EQ(Ingest({Put("a.jsonl", Line("x", "old") + Line("x", "new"))}), kFailed);
  EXPECT_EQ(retriever_.documents["x"].text(), "new");
  EXPECT_EQ(SentCount(), 2U);
}

TEST_F(CliIngestTest, NorWhenTheStreamBreaksMeanwhile) {
  retriever_.failing = {{"x", 1}};
  retriever_.acknowledgements_until_break = 2;
  EXPECT_EQ(Ingest({Put("a.jsonl", Line("x", "old") + Line("x", "new") + Line("y", "text"))}), kFailed);
  EXPECT_EQ(retriever_.documents["x"].text(), "new");
  EXPECT_THAT(retriever_.streams, ElementsAre(ElementsAre("x", "x", "y"), ElementsAre("y")));
}

TEST_F(CliIngestTest, ABrokenStreamWhileADocumentWaitsForItsNextTry) {
  retriever_.failing = {{"d1", 1}};
  retriever_.acknowledgements_until_break = 4;
  std::string lines;
  for (int i = 0; i < 8; ++i) lines += Line(StrCat("d", i), "text");
  EXPECT_EQ(Ingest({Put("a.jsonl", lines), "--window", "4"}), kOk) << err_;
  EXPECT_THAT(StoredIds(), SizeIs(8));
  EXPECT_THAT(retriever_.streams, SizeIs(2));
  EXPECT_THAT(out_, HasSubstr("8 created, 0 replaced, 0 unchanged"));
}

TEST_F(CliIngestTest, TheResumeFileWaitsForADocumentThatIsTriedAgain) {
  const std::vector<std::string> command = {Put("a.jsonl", Line("d0", "a") + Line("d1", "b") + Line("d2", "c")),
                                            "--retries", "0", "--resume-file", (folder_ / "resume").string()};
  retriever_.failing = {{"d1", 1}};
  EXPECT_EQ(Ingest(command), kFailed);
  EXPECT_EQ(Ingest(command), kOk) << err_;
  EXPECT_THAT(retriever_.streams.back(), ElementsAre("d1", "d2"));
}

}  // namespace
}  // namespace retro::cli
