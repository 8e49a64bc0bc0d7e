// Whole commands against fake services: what is asked, what is printed, which exit code.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
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
#include "tests/cli_fixture.h"
#include "tests/test_certificates.h"

namespace retro::cli {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

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

TEST_F(CliTest, AddressesThatAreNone) {
  for (const char* address : {"", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:port", ":7700"}) {
    const Result result = RunAsIs({"search", "x", "--retriever", address});
    EXPECT_EQ(result.code, kUsage) << address;
    EXPECT_THAT(result.err, HasSubstr("write HOST:PORT")) << address;
  }
}

TEST_F(CliTest, ArgumentsThatAreNoUtf8AreRefusedAndPathsReported) {
  for (const char* command : {"search", "get", "delete", "generate"}) {
    const Result result = Run({command, "caf\xe9"});
    EXPECT_EQ(result.code, kUsage) << command;
    EXPECT_THAT(result.err, HasSubstr("is no UTF-8: convert it")) << command;
  }
  const Result ingest = Run({"ingest", Put("caf\xe9.jsonl", "{\"text\":\"x\"}\n"), Put("good.txt", "text")});
  EXPECT_EQ(ingest.code, kFailed);
  EXPECT_THAT(ingest.err, HasSubstr("its name is no UTF-8: rename it"));
  EXPECT_THAT(retriever_.documents, SizeIs(1));
}

TEST_F(CliTest, AServiceThatDoesNotKnowTheCallIsProbablyAnother) {
  retriever_.failure = {grpc::StatusCode::UNIMPLEMENTED, ""};
  const Result result = Run({"search", "x"});
  EXPECT_EQ(result.code, kFailed);
  EXPECT_THAT(result.err, HasSubstr("does not know this call: is it the retriever's address"));
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
  for (const char* command :
       {"ingest", "search", "generate", "score", "get", "list", "delete", "export", "stats", "health"}) {
    const Result one = RunAsIs({command, "--help"});
    EXPECT_EQ(one.code, kOk) << command;
    EXPECT_THAT(one.out, AllOf(HasSubstr(StrCat("retro ", command)), HasSubstr("--json"))) << command;
  }
}

TEST_F(CliTest, ExamplesStandInTheHelpOfTheirCommandAlone) {
  for (const auto& [command, action] :
       {std::pair{"admin", "promote"}, std::pair{"snapshot", "create"}, std::pair{"collections", "list"}}) {
    EXPECT_THAT(RunAsIs({command, "--help"}).out, HasSubstr("Examples:"));
    EXPECT_THAT(RunAsIs({command, action, "--help"}).out, testing::Not(HasSubstr("Examples:")));
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

TEST_F(CliGenerateTest, ALogitBiasIsAnIdAndANumber) {
  for (const char* pair : {"99999999999=5", "=5", "17=", "17", "x=1", "17=5x", "17=1e99"}) {
    const Result result = Run({"generate", "Once", "--logit-bias", pair});
    EXPECT_EQ(result.code, kUsage) << pair;
    EXPECT_THAT(result.err, HasSubstr("write ID=NUMBER")) << pair;
  }
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
  for (const char* id : {"a", "b", "c"}) retriever_.documents[id].set_text("x");
  EXPECT_EQ(Run({"delete", "a", "b", "missing"}).out, "2 documents deleted\n");
  EXPECT_THAT(retriever_.delete_requests.back().document_ids(), ElementsAre("a", "b", "missing"));
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

TEST_F(CliTest, CollectionsAreMadeListedAndDeleted) {
  EXPECT_EQ(Run({"collections", "create", "news"}).out, "collection news is there\n");
  const Result list = Run({"collections", "list"});
  EXPECT_THAT(list.out, AllOf(HasSubstr("(default)"), HasSubstr("news")));
  EXPECT_THAT(Run({"collections", "list", "--json"}).out, HasSubstr("{\"collections\":[{"));
  EXPECT_EQ(Run({"collections", "delete", "news"}).code, kUsage);  // nobody there to ask
  const Result no = Run({"collections", "delete", "news"}, "n\n", true);
  EXPECT_EQ(no.code, kFailed);
  EXPECT_THAT(no.err, HasSubstr("Delete collection news with its 0 documents? [y/N]"));
  EXPECT_EQ(retriever_.collections.size(), 2U);
  EXPECT_EQ(Run({"collections", "delete", "news"}, "y\n", true).out, "collection news deleted\n");
  EXPECT_EQ(Run({"collections", "delete", "news", "--yes"}).code, kFailed);
  EXPECT_EQ(Run({"collections"}).code, kUsage);
  EXPECT_EQ(Run({"collections", "create"}).code, kUsage);
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

TEST_F(CliTest, AnExportToADeviceOrAPipeDoesNotReplaceIt) {
  retriever_.documents["a"].set_text("text");
  const std::string pipe = (folder_ / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::string read;
  std::thread reader([&] {
    std::ifstream in(pipe);
    std::getline(in, read);
  });
  EXPECT_EQ(Run({"export", "--out", pipe}).code, kOk);
  reader.join();
  EXPECT_THAT(read, HasSubstr("\"text\":\"text\""));
  EXPECT_EQ(fs::status(pipe).type(), fs::file_type::fifo);
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

TEST_F(CliTest, DoctorFindsWhatIsWrong) {
  const Result well = Run({"doctor"});
  EXPECT_EQ(well.code, kOk) << well.out << well.err;
  EXPECT_THAT(well.out, AllOf(HasSubstr("56,789 chunks can be found"), HasSubstr("warning  retriever  is of version"),
                              HasSubstr("generates, with neighbours as it should"), Not(HasSubstr("FAILED"))));
  EXPECT_EQ(generator_.request.max_tokens(), 1U);

  retriever_.read_only = true;
  generator_.events.emplace_back().mutable_retrieval()->set_degradation(gen::DEGRADATION_TIMED_OUT);
  const Result ill = Run({"doctor", "--json"});
  EXPECT_EQ(ill.code, kFailed);
  EXPECT_THAT(ill.out, AllOf(HasSubstr(R"("verdict":"FAILED","subject":"retriever","finding":"shard 0 refuses writes)"),
                             HasSubstr(R"("verdict":"FAILED","subject":"generator","finding":"generates without)")));
  EXPECT_EQ(RunAsIs({"doctor", "--retriever", "127.0.0.1:1", "--generator", server_.address()}).code, kUnreachable);
}

admin::v1::Replica MakeReplica(const std::string& name, bool primary) {
  admin::v1::Replica replica;
  replica.set_shard(1);
  replica.set_name(name);
  replica.set_primary(primary);
  replica.set_in_sync(true);
  replica.set_reachable(true);
  return replica;
}

TEST_F(CliTest, VerifyComparesReplicasAtOnePosition) {
  FakeAdmin& admin = server_.admin;
  admin.replicas = {MakeReplica("b0", true), MakeReplica("b1", false)};
  for (const char* name : {"b0", "b1"}) {
    admin.contents[name].set_content_sha256("same");
    admin.contents[name].set_position(7);
  }
  const std::vector<std::string> command = {"admin", "verify", "--all"};
  EXPECT_EQ(Run(command).code, kOk);
  EXPECT_THAT(Run(command).out, AllOf(HasSubstr("b0               primary"), HasSubstr("b1               equal")));
  admin.contents["b1"].set_content_sha256("other");
  const Result differs = Run(command);
  EXPECT_EQ(differs.code, kFailed);
  EXPECT_THAT(differs.out, HasSubstr("b1               DIFFERS"));
  admin.contents["b0"].set_position(9);
  const Result moved = Run({"admin", "verify", "--all", "--json"});
  EXPECT_EQ(moved.code, kFailed);
  EXPECT_THAT(moved.out, HasSubstr(R"("replica":"b1","verdict":"NOT COMPARED")")) << "other content, but also position";
  EXPECT_THAT(moved.err, HasSubstr("were not seen at one position"));
  admin.contents["b1"].set_content_sha256("same");
  admin.moves = "b1";  // and is where the primary is at the third try
  EXPECT_EQ(Run(command).code, kOk);
  admin.contents.erase("b1");
  const Result gone = Run(command);
  EXPECT_EQ(gone.code, kFailed);
  EXPECT_THAT(gone.out, HasSubstr("NO ANSWER"));
  EXPECT_EQ(Run({"admin", "verify", "--all", "--replica", "b1"}).code, kUsage);
}

TEST_F(CliTest, DoctorLooksAtReplicasIndexesAndVersions) {
  std::vector<admin::v1::Replica>& replicas = server_.admin.replicas;
  replicas = {MakeReplica("b0", true), MakeReplica("b1", false)};
  EXPECT_THAT(Run({"doctor"}).out,
              AllOf(HasSubstr("all 2 replicas are in sync"), HasSubstr("warning  generator  is of version 0.0.1"),
                    Not(HasSubstr("index"))));
  replicas[1].set_in_sync(false);
  retriever_.index_state = pb::INDEX_STATE_REBUILDING;
  retriever_.measured_recall = 0.8F;
  const Result worse = Run({"doctor"});
  EXPECT_EQ(worse.code, kOk) << "one failure fewer is survived, and none has come";
  EXPECT_THAT(worse.out, AllOf(HasSubstr("warning  retriever  replica b1 of shard 1 is not in sync"),
                               HasSubstr("is being made again"), HasSubstr("finds 80 %"), Not(HasSubstr("all 2"))));
  replicas[1].set_reachable(false);
  EXPECT_THAT(Run({"doctor"}).out, HasSubstr("warning  retriever  replica b1 of shard 1 does not answer"));
  replicas[0].set_reachable(false);
  const Result ill = Run({"doctor"});
  EXPECT_EQ(ill.code, kFailed);
  EXPECT_THAT(ill.out, HasSubstr("replica b0 of shard 1 is its primary and does not answer"));
  server_.admin.failure = {grpc::StatusCode::PERMISSION_DENIED, "no"};
  const Result reader = Run({"doctor"});
  EXPECT_EQ(reader.code, kOk) << "who may not see replicas is not told that they are ill";
  EXPECT_THAT(reader.out, HasSubstr("to admin keys alone"));
}

TEST_F(CliTest, DoctorSeesWhenCertificatesEnd) {
  const TestAuthority authority("authority");
  for (const auto& [hours, finding] : {std::pair{24 * 30 + 1, "ok       retriever  its certificate ends in 30 days"},
                                       {25, "warning  retriever  its certificate ends in 25 hours"}}) {
    const TestIdentity identity = authority.Sign("server", std::chrono::hours(hours) + std::chrono::minutes(30));
    grpc::SslServerCredentialsOptions tls;
    tls.pem_key_cert_pairs.push_back({identity.key, identity.certificate});
    const FakeServer server(grpc::SslServerCredentials(tls));
    const Result result = RunAsIs({"doctor", "--tls-ca", Put("ca.pem", authority.certificate()), "--retriever",
                                   server.address(), "--generator", server.address()});
    EXPECT_EQ(result.code, kOk) << result.out << result.err;
    EXPECT_THAT(result.out, HasSubstr(finding));
  }
}

TEST_F(CliTest, DoctorSeesThatAKeyIsNotAskedFor) {
  const Result result = Run({"doctor", "--api-key-file", Put("key", "secret")});
  EXPECT_THAT(result.out, HasSubstr("takes calls without a key"));
  EXPECT_THAT(result.out, Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace retro::cli
