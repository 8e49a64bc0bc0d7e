// Whole commands against fake services: what is asked, what is printed, which exit code.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cli/app.h"
#include "cli/exit_code.h"
#include "cli/interrupt.h"
#include "cli/message_json.h"
#include "common/base/error.h"
#include "common/rpc/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/fake_services.h"

namespace retro::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

struct Result {
  int code = 0;
  std::string out;
  std::string err;
};

class CliTest : public testing::Test {
 protected:
  CliTest() : folder_(fs::temp_directory_path() / StrCat("cli_test_", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~CliTest() override {
    ResetInterrupt();
    fs::remove_all(folder_);
  }

  // Runs a command against the fake services.
  Result Run(std::vector<std::string> arguments, const std::string& input = "", bool terminal = false) {
    const bool asks_generator = arguments[0] == "generate";
    if (!asks_generator) arguments.push_back("--retriever=" + server_.address());
    if (asks_generator || arguments[0] == "health") arguments.push_back("--generator=" + server_.address());
    return RunAsIs(arguments, input, terminal);
  }
  static Result RunAsIs(const std::vector<std::string>& arguments, const std::string& input = "",
                        bool terminal = false) {
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    Console console{in, out, err};
    console.in_terminal = console.out_terminal = console.err_terminal = terminal;
    const int code = RunCommandLine(arguments, console);
    return {code, out.str(), err.str()};
  }
  std::string Put(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return (folder_ / name).string();
  }
  // A JSONL file of documents d0, d1, ...
  std::string PutDocuments(const std::string& name, int count) {
    std::string lines;
    for (int i = 0; i < count; ++i) lines += StrCat("{\"id\":\"d", i, "\",\"text\":\"text ", i, "\"}\n");
    return Put(name, lines);
  }

  const fs::path folder_;
  FakeServer server_;
  FakeRetriever& retriever_ = server_.retriever;
  FakeGenerator& generator_ = server_.generator;
};

// ---------------------------------------------------------------- errors

TEST_F(CliTest, UnreachableServicesAreExitCode3AndSayWhatToDo) {
  const Result search = RunAsIs({"search", "x", "--retriever", "127.0.0.1:1"});
  EXPECT_EQ(search.code, kUnreachable);
  EXPECT_THAT(search.err, HasSubstr("retro: retriever at 127.0.0.1:1 cannot be reached: is it running? Start it with "
                                    "deploy/local/up.sh"));
  EXPECT_EQ(std::count(search.err.begin(), search.err.end(), '\n'), 1);
  const Result generate = RunAsIs({"generate", "x", "--generator", "127.0.0.1:1"});
  EXPECT_EQ(generate.code, kUnreachable);
  EXPECT_THAT(generate.err, HasSubstr("generator at 127.0.0.1:1 cannot be reached"));
  EXPECT_EQ(RunAsIs({"ingest", folder_.string(), "--retriever", "127.0.0.1:1"}).code, kUnreachable);
}

TEST_F(CliTest, ResultsThatCannotBeWrittenAreExitCode1) {
  std::istringstream in;
  std::ostringstream err;
  std::ofstream full("/dev/full");
  const Console console{in, full, err};
  EXPECT_EQ(RunCommandLine({"stats", "--json", "--retriever", server_.address()}, console), 1);
  EXPECT_THAT(err.str(), HasSubstr("cannot write"));
}

TEST_F(CliTest, WrongCommandLinesAreExitCode2) {
  EXPECT_EQ(RunAsIs({}).code, kUsage);
  EXPECT_EQ(RunAsIs({"serch", "x"}).code, kUsage);
  EXPECT_THAT(RunAsIs({"search"}).err, HasSubstr("text is required"));
  EXPECT_EQ(RunAsIs({"search", "x", "-k", "0"}).code, kUsage);
  EXPECT_EQ(RunAsIs({"search", "x", "-k", "1000000000"}).code, kUsage);
  EXPECT_EQ(RunAsIs({"search", "x", "--exact", "--effort", "0.5"}).code, kUsage);
  const Result filter = RunAsIs({"search", "x", "--filter", "lang ="});
  EXPECT_EQ(filter.code, kUsage);
  EXPECT_THAT(filter.err, HasSubstr("filter, column 7"));
  EXPECT_EQ(RunAsIs({"generate", ""}).code, kUsage);
  EXPECT_THAT(RunAsIs({"generate", "x", "--logit-bias", "a=1"}).err, HasSubstr("ID=NUMBER"));
}

TEST_F(CliTest, NumbersOutOfRangeAreToldInAShortLine) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"generate", "x", "--max-tokens", "0"},
                                                    {"search", "x", "--max-distance", "nan"},
                                                    {"search", "x", "--max-per-document", "0"}}) {
    const Result result = RunAsIs(arguments);
    EXPECT_EQ(result.code, kUsage);
    EXPECT_THAT(result.err, HasSubstr("must be a number above 0"));
    EXPECT_LT(result.err.size(), 160U) << result.err;
  }
}

TEST_F(CliTest, HelpIsExitCode0AndHasExamples) {
  const Result all = RunAsIs({"--help"});
  EXPECT_EQ(all.code, kOk);
  EXPECT_THAT(all.out, AllOf(HasSubstr("Exit codes: 0 done"), HasSubstr("ingest")));
  for (const char* command : {"ingest", "search", "generate", "get", "list", "delete", "export", "stats", "health"}) {
    const Result one = RunAsIs({command, "--help"});
    EXPECT_EQ(one.code, kOk) << command;
    EXPECT_THAT(one.out, AllOf(HasSubstr(StrCat("retro ", command)), HasSubstr("--json"))) << command;
  }
}

TEST_F(CliTest, ServerErrorsShowMessageReasonAndField) {
  retriever_.failure = ToGrpcStatus(FieldError("queries[0].text", "is too long"));
  const Result refused = Run({"search", "x"});
  EXPECT_EQ(refused.code, kFailed);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("queries[0].text"), HasSubstr("is too long"), HasSubstr("INVALID_ARGUMENT"),
                                 HasSubstr("reason INVALID_FIELD"), HasSubstr("field queries[0].text")));
  // UNAVAILABLE with a reason comes from a service that is there.
  retriever_.failure = ToGrpcStatus(Error(absl::StatusCode::kUnavailable, Reason::kShuttingDown, "shutting down"));
  EXPECT_EQ(Run({"search", "x"}).code, kFailed);
}

// ---------------------------------------------------------------- ingest

TEST_F(CliTest, IngestSendsDocumentsAndSumsUp) {
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

TEST_F(CliTest, IngestReportsWhatItSkipsAndGoesOn) {
  const std::string bad = Put("bad.jsonl", "{oops\n{\"id\":\"good\",\"text\":\"x\"}\n");
  const Result result =
      Run({"ingest", (folder_ / "missing.txt").string(), Put("binary.txt", std::string("a\0", 2)), bad});
  EXPECT_EQ(result.code, kFailed);
  EXPECT_THAT(result.err, AllOf(HasSubstr("skipped: " + (folder_ / "missing.txt").string()), HasSubstr("binary"),
                                HasSubstr(bad + ":1: the line is no JSON")));
  EXPECT_THAT(result.out, HasSubstr("1 created, 0 replaced, 0 unchanged, 0 failed, 3 skipped"));
}

TEST_F(CliTest, IngestReportsRefusedDocuments) {
  retriever_.refused_id = "d1";
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 3)});
  EXPECT_EQ(result.code, kFailed);
  EXPECT_THAT(result.err, HasSubstr("failed: d1: the text is odd (reason INVALID_FIELD, field document.text)"));
  EXPECT_THAT(result.out, HasSubstr("2 created, 0 replaced, 0 unchanged, 1 failed"));
}

TEST_F(CliTest, IngestPrintsJson) {
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

TEST_F(CliTest, IngestReadsStandardInput) {
  const Result result = Run({"ingest", "-"}, "{\"id\":\"a\",\"text\":\"x\"}\n");
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_EQ(retriever_.documents.count("a"), 1U);
}

TEST_F(CliTest, IngestFillsItsWindowAndDoesNotExceedIt) {
  // The fake acknowledges nothing until 8 wait: a smaller window would stall, a larger one is seen below.
  retriever_.acknowledge_at = 8;
  retriever_.expected_documents = 50;
  EXPECT_EQ(Run({"ingest", PutDocuments("a.jsonl", 50), "--window", "8", "--timeout", "10"}).code, kOk);
  EXPECT_EQ(retriever_.documents.size(), 50U);
  EXPECT_EQ(retriever_.waiting_max, 8U);

  retriever_.documents.clear();
  retriever_.acknowledge_at = 9;  // never reached with a window of 8
  const Result stalled = Run({"ingest", PutDocuments("a.jsonl", 50), "--window", "8", "--timeout", "0.05"});
  EXPECT_EQ(stalled.code, kFailed);
  EXPECT_THAT(stalled.err, HasSubstr("8 documents were sent and not acknowledged"));
  EXPECT_EQ(retriever_.waiting_max, 8U);
}

TEST_F(CliTest, ABrokenStreamIsOpenedAgainAndTheRestSentAgain) {
  retriever_.acknowledgements_until_break = 3;
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 10), "--window", "4"});
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_THAT(result.out, HasSubstr("10 created, 0 replaced, 0 unchanged"));
  ASSERT_THAT(retriever_.streams, SizeIs(2));
  EXPECT_THAT(retriever_.streams[1], ElementsAre("d3", "d4", "d5", "d6", "d7", "d8", "d9"));
}

TEST_F(CliTest, TriesAreBounded) {
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

TEST_F(CliTest, AnInterruptedRunGoesOnWhereItWas) {
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

TEST_F(CliTest, ARefusedDocumentIsTriedAgainByTheNextRun) {
  const std::vector<std::string> command = {"ingest", PutDocuments("a.jsonl", 4), "--resume-file",
                                            (folder_ / "resume").string()};
  retriever_.refused_id = "d2";
  EXPECT_EQ(Run(command).code, kFailed);
  retriever_.refused_id = "";
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(retriever_.streams.back(), ElementsAre("d2", "d3"));
}

TEST_F(CliTest, AForeignResumeFileIsRefused) {
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 1), "--resume-file", Put("notes.txt", "my notes\n")});
  EXPECT_EQ(result.code, kUsage);
  EXPECT_THAT(result.err, HasSubstr("is no resume file"));
  EXPECT_THAT(retriever_.streams, IsEmpty());
}

TEST_F(CliTest, CtrlCEndsAnIngestAndSaysWhatIsIn) {
  retriever_.on_document = [](const pb::IngestRequest& request) {
    if (request.write().document().id() == "d5") Interrupt();
  };
  const Result result = Run({"ingest", PutDocuments("a.jsonl", 100), "--window", "1"});
  EXPECT_EQ(result.code, kInterrupted);
  EXPECT_THAT(result.err, HasSubstr("interrupted"));
  EXPECT_THAT(result.out, HasSubstr("5 created"));
}

// ---------------------------------------------------------------- search

pb::Neighbour MakeNeighbour() {
  pb::Neighbour neighbour;
  neighbour.set_document_id("doc");
  neighbour.set_title("The title");
  neighbour.set_source("book.html");
  neighbour.set_distance(0.25);
  neighbour.mutable_chunk()->set_chunk_number(7);
  neighbour.mutable_chunk()->set_text("what was found\x1b[31m");
  neighbour.mutable_continuation()->set_text("what follows");
  return neighbour;
}

TEST_F(CliTest, SearchAsksWhatItIsTold) {
  EXPECT_EQ(
      Run({"search",       "x y",   "-k",           "7", "--effort",       "0.25", "--filter",           "lang = 'en'",
           "--exclude",    "a",     "--exclude",    "b", "--max-distance", "1.5",  "--max-per-document", "2",
           "--query-kind", "query", "--collection", "c"})
          .code,
      kOk);
  const pb::SearchRequest& request = retriever_.search_request;
  EXPECT_EQ(request.queries(0).text(), "x y");
  EXPECT_EQ(request.queries(0).text_kind(), pb::TEXT_KIND_QUERY);
  EXPECT_EQ(request.k(), 7U);
  EXPECT_EQ(request.effort().level(), 0.25F);
  EXPECT_EQ(request.filter().equals().value().string_value(), "en");
  EXPECT_THAT(request.exclude_document_ids(), ElementsAre("a", "b"));
  EXPECT_EQ(request.max_distance(), 1.5F);
  EXPECT_EQ(request.max_chunks_per_document(), 2U);
  EXPECT_EQ(request.collection(), "c");
  EXPECT_EQ(Run({"search", "x", "--exact"}).code, kOk);
  EXPECT_TRUE(retriever_.search_request.effort().exact());
}

TEST_F(CliTest, SearchShowsNeighbours) {
  *retriever_.search_response.add_results()->add_neighbours() = MakeNeighbour();
  const Result people = Run({"search", "x"});
  EXPECT_THAT(people.out, AllOf(HasSubstr("  1  The title (book.html, chunk 7)  distance 0.2500"),
                                HasSubstr("     what was found?[31m\n     what follows\n"), Not(HasSubstr("\x1b"))));
  const Result json = Run({"search", "x", "--json"});
  pb::Neighbour back;
  ASSERT_TRUE(MessageFromJson(json.out, &back).ok()) << json.out;
  EXPECT_EQ(back.ShortDebugString(), MakeNeighbour().ShortDebugString());
}

// ---------------------------------------------------------------- generate

gen::GenerateResponse TokenEvent(uint32_t position, const std::string& text, uint32_t shared_run = 0) {
  gen::GenerateResponse event;
  event.mutable_token()->set_position(position);
  event.mutable_token()->set_raw(text);
  event.mutable_token()->set_text(text);
  gen::NeighbourAttribution& attribution = *event.mutable_token()->add_attributions();
  attribution.set_attention(0.5);
  attribution.set_shared_run(shared_run);
  return event;
}

class CliGenerateTest : public CliTest {
 protected:
  CliGenerateTest() {
    gen::GenerateResponse retrieval;
    retrieval.mutable_retrieval()->set_token_end(64);
    retrieval.mutable_retrieval()->mutable_neighbours()->set_chunk_number(0);
    *retrieval.mutable_retrieval()->mutable_neighbours()->add_neighbours() = MakeNeighbour();
    generator_.events.push_back(retrieval);
    for (uint32_t i = 0; i < 9; ++i) generator_.events.push_back(TokenEvent(64 + i, StrCat(" t", i), i + 1));
    gen::GenerateResponse finish;
    finish.mutable_finish()->set_reason(gen::FINISH_REASON_STOP);
    finish.mutable_finish()->set_seed(77);
    finish.mutable_finish()->set_text(" end.");
    generator_.events.push_back(finish);
  }
};

TEST_F(CliGenerateTest, TextGoesToStandardOutputAndTheRestToStandardError) {
  const Result plain = Run({"generate", "Once"});
  EXPECT_EQ(plain.code, kOk);
  EXPECT_EQ(plain.out, " t0 t1 t2 t3 t4 t5 t6 t7 t8 end.\n");
  EXPECT_THAT(plain.err, AllOf(HasSubstr("seed 77"), Not(HasSubstr("The title"))));
  EXPECT_THAT(Run({"generate", "Once", "--show-neighbours"}).err, HasSubstr("1. 0.250 The title (book.html, chunk 7)"));
  EXPECT_THAT(Run({"generate", "Once"}, "", true).err, HasSubstr("The title"));
  EXPECT_EQ(Run({"generate", "Once", "--quiet"}).err, "");
}

TEST_F(CliGenerateTest, AttributionMarksAndListsWhatCameFromNeighbours) {
  const Result result = Run({"generate", "Once", "--attribution"}, "", true);
  EXPECT_TRUE(generator_.request.attribution());
  EXPECT_THAT(result.out,
              AllOf(HasSubstr(" t6"), HasSubstr("\x1b[32m t7\x1b[0m\x1b[32m t8\x1b[0m"), Not(HasSubstr("m t6"))));
  EXPECT_THAT(result.err, AllOf(HasSubstr(" 50%  The title"), HasSubstr("9 tokens: \"t0 t1 t2 t3 t4 t5 t6 t7 t8\"")));
}

TEST_F(CliGenerateTest, SamplingIsWhatItIsToldToBe) {
  const Result result =
      Run({"generate", "-",   "--max-tokens", "5", "--temperature",        "0",   "--top-k",      "3",
           "--top-p",  "0.5", "--seed",       "9", "--repetition-penalty", "1.2", "--logit-bias", "17=-5",
           "--stop",   "END", "--stop-id",    "4", "--logprobs",           "2",   "--echo",       "--slide"},
          "a prompt\n");
  EXPECT_EQ(result.code, kOk) << result.err;
  const gen::GenerateRequest& request = generator_.request;
  EXPECT_EQ(request.text(), "a prompt");
  EXPECT_EQ(request.max_tokens(), 5U);
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_k(), 3U);
  EXPECT_EQ(request.sampling().top_p(), 0.5F);
  EXPECT_EQ(request.sampling().repetition_penalty(), 1.2F);
  EXPECT_EQ(request.sampling().seed(), 9U);
  EXPECT_EQ(request.sampling().logit_bias().at(17), -5);
  EXPECT_THAT(request.stop_strings(), ElementsAre("END"));
  EXPECT_THAT(request.stop_ids(), ElementsAre(4));
  EXPECT_EQ(request.top_logprobs(), 2U);
  EXPECT_TRUE(request.echo());
  EXPECT_EQ(request.context_policy(), gen::CONTEXT_POLICY_SLIDE);
}

TEST_F(CliGenerateTest, RetrievalIsWhatItIsToldToBe) {
  const Result result =
      Run({"generate", "x", "-k", "3", "--alignment", "paper", "--gate", "0.5", "--lookup-timeout", "1.5",
           "--go-on-without", "--filter", "exists(x)", "--collection", "c", "--exclude", "d", "--offset", "4"});
  EXPECT_EQ(result.code, kOk) << result.err;
  const gen::Retrieval retrieval = generator_.request.retrieval();
  EXPECT_FALSE(retrieval.has_enabled());
  EXPECT_EQ(retrieval.k(), 3U);
  EXPECT_EQ(retrieval.alignment(), gen::ALIGNMENT_PAPER);
  EXPECT_EQ(retrieval.gate(), 0.5F);
  EXPECT_EQ(retrieval.timeout().nanos(), 500'000'000);
  EXPECT_EQ(retrieval.on_failure(), gen::FAILURE_POLICY_GO_ON_WITHOUT);
  EXPECT_EQ(retrieval.filter().exists().field().metadata_key(), "x");
  EXPECT_EQ(retrieval.collection(), "c");
  EXPECT_EQ(retrieval.offset(), 4U);
  EXPECT_THAT(retrieval.exclude_document_ids(), ElementsAre("d"));
  EXPECT_EQ(Run({"generate", "x", "--no-retrieval"}).code, kOk);
  EXPECT_FALSE(generator_.request.retrieval().enabled());
  EXPECT_TRUE(generator_.request.retrieval().has_enabled());
}

TEST_F(CliGenerateTest, ASavedRunIsReplayed) {
  const std::string file = (folder_ / "run.jsonl").string();
  EXPECT_EQ(Run({"generate", "Once", "--save-run", file}).code, kOk);
  EXPECT_EQ(Run({"generate", "Once", "--replay", file}).code, kOk);
  ASSERT_EQ(generator_.request.retrieval().neighbours_size(), 1);
  EXPECT_EQ(generator_.request.retrieval().neighbours(0).neighbours(0).ShortDebugString(),
            MakeNeighbour().ShortDebugString());
  EXPECT_EQ(generator_.request.sampling().seed(), 77U);
  EXPECT_EQ(Run({"generate", "Once", "--replay", file, "--seed", "5"}).code, kOk);
  EXPECT_EQ(generator_.request.sampling().seed(), 5U);
  const Result bad = Run({"generate", "Once", "--replay", Put("bad", "{\"x\":1}\n")});
  EXPECT_EQ(bad.code, kUsage);
  EXPECT_THAT(bad.err, HasSubstr("bad:1:"));
}

TEST_F(CliGenerateTest, JsonIsOneEventALine) {
  const Result result = Run({"generate", "Once", "--json"});
  std::istringstream lines(result.out);
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    gen::GenerateResponse event;
    ASSERT_TRUE(MessageFromJson(line, &event).ok()) << line;
    text += event.token().text() + event.finish().text();
  }
  EXPECT_EQ(text, " t0 t1 t2 t3 t4 t5 t6 t7 t8 end.");
}

TEST_F(CliGenerateTest, ATextThatWasCutShortIsAFailure) {
  generator_.events.back().mutable_finish()->set_reason(gen::FINISH_REASON_DRAINED);
  const Result drained = Run({"generate", "Once"});
  EXPECT_EQ(drained.code, kFailed);
  EXPECT_THAT(drained.err, HasSubstr("shutting down"));
  generator_.events.pop_back();
  generator_.ending =
      ToGrpcStatus(Error(absl::StatusCode::kUnavailable, Reason::kRetrievalFailed, "the retriever does not answer"));
  const Result failed = Run({"generate", "Once"});
  EXPECT_EQ(failed.code, kFailed);
  EXPECT_THAT(failed.err, AllOf(HasSubstr("reason RETRIEVAL_FAILED"), HasSubstr("ends after 9 tokens")));
}

// ---------------------------------------------------------------- get, list, delete, export, stats, health

TEST_F(CliTest, GetPrintsADocumentOrItsChunks) {
  retriever_.documents["a"].set_text("the text");
  EXPECT_EQ(Run({"get", "a"}).out, "the text\n");
  const Result missing = Run({"get", "b"});
  EXPECT_EQ(missing.code, kFailed);
  EXPECT_THAT(missing.err, HasSubstr("no such document"));
  const Result chunks = Run({"get", "a", "--chunks"});
  for (int i = 0; i < 5; ++i) EXPECT_THAT(chunks.out, HasSubstr(StrCat("chunk text ", i)));
}

TEST_F(CliTest, ListFollowsPages) {
  for (const char* id : {"a", "b", "c", "d", "e"}) retriever_.documents[id].set_text("x");
  const Result all = Run({"list", "--json", "--filter", "exists(x)"});
  EXPECT_EQ(std::count(all.out.begin(), all.out.end(), '\n'), 5) << all.out;
  EXPECT_EQ(retriever_.list_request.filter().exists().field().metadata_key(), "x");
  const Result some = Run({"list", "--limit", "3"});
  EXPECT_EQ(std::count(some.out.begin(), some.out.end(), '\n'), 4) << some.out;  // and a head line
  EXPECT_THAT(some.err, HasSubstr("more documents follow"));
}

TEST_F(CliTest, DeleteByIds) {
  EXPECT_EQ(Run({"delete", "a", "b"}).out, "2 documents deleted\n");
  EXPECT_THAT(retriever_.delete_requests.back().document_ids(), ElementsAre("a", "b"));
  EXPECT_EQ(Run({"delete"}).code, kUsage);
  EXPECT_EQ(Run({"delete", "a", "--filter", "exists(x)"}).code, kUsage);
}

TEST_F(CliTest, DeleteByFilterAsksFirst) {
  const std::vector<std::string> command = {"delete", "--filter", "exists(x)"};
  EXPECT_EQ(Run(command).code, kUsage);  // nobody there to ask
  EXPECT_THAT(retriever_.delete_requests, IsEmpty());
  const Result no = Run(command, "n\n", true);
  EXPECT_EQ(no.code, kFailed);
  EXPECT_THAT(no.err, HasSubstr("Delete 42 documents? [y/N]"));
  ASSERT_THAT(retriever_.delete_requests, SizeIs(1));
  EXPECT_TRUE(retriever_.delete_requests[0].dry_run());
  EXPECT_EQ(Run(command, "y\n", true).out, "42 documents deleted\n");
  ASSERT_THAT(retriever_.delete_requests, SizeIs(3));
  EXPECT_FALSE(retriever_.delete_requests[2].dry_run());
  EXPECT_EQ(Run({"delete", "--filter", "exists(x)", "--yes", "--json"}).out,
            "{\"deleted_count\":42,\"dry_run\":false}\n");
  EXPECT_EQ(Run({"delete", "--filter", "exists(x)", "--dry-run"}).out, "42 documents would be deleted\n");
  EXPECT_TRUE(retriever_.delete_requests.back().dry_run());
}

TEST_F(CliTest, AnExportIsIngestedAsItWas) {
  EXPECT_EQ(Run({"ingest", PutDocuments("a.jsonl", 5), "--metadata", "n:=[1,2.0]"}).code, kOk);
  const auto before = retriever_.documents;
  const std::string file = (folder_ / "out.jsonl").string();
  EXPECT_EQ(Run({"export", "--out", file}).code, kOk);
  EXPECT_FALSE(fs::exists(file + ".partial"));
  retriever_.documents.clear();
  EXPECT_EQ(Run({"ingest", file}).code, kOk);
  ASSERT_EQ(retriever_.documents.size(), 5U);
  for (const auto& [id, document] : before) {
    EXPECT_EQ(retriever_.documents[id].ShortDebugString(), document.ShortDebugString());
  }
}

TEST_F(CliTest, StatsAreATable) {
  const Result result = Run({"stats"});
  EXPECT_EQ(result.code, kOk) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("(default)"), HasSubstr("1,234"), HasSubstr("56,789"), HasSubstr("EXACT"),
                                HasSubstr("5.0 MB on disk")));
}

TEST_F(CliTest, HealthAsksBothServicesByName) {
  server_.health().SetServingStatus("retro.generator.v1.GeneratorService", true);
  const Result healthy = Run({"health"});
  EXPECT_EQ(healthy.code, kOk) << healthy.err;
  EXPECT_THAT(healthy.out, HasSubstr("its model is loaded"));
  server_.health().SetServingStatus("retro.generator.v1.GeneratorService", false);
  const Result sick = Run({"health", "--json"});
  EXPECT_EQ(sick.code, kFailed);
  EXPECT_THAT(sick.out, HasSubstr(R"("name":"retro.generator.v1.GeneratorService","state":"NOT_SERVING")"));
  EXPECT_EQ(Run({"health", "retriever"}).code, kOk);
  EXPECT_EQ(RunAsIs({"health", "retriever", "--retriever", "127.0.0.1:1"}).code, kUnreachable);
}

}  // namespace
}  // namespace retro::cli
