// What a generator refuses to the holders of API keys: it asks the retriever with a key of its own, so a collection
// that is not the caller's must not get past it.

#include <memory>
#include <string>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/rpc/credentials.h"
#include "tests/doors.h"
#include "tests/generator_fixture.h"
#include "tests/temporary_folder.h"

namespace retro {
namespace {

namespace pb = ::retro::generator::v1;

class GeneratorSecurityTest : public GeneratorServiceTest {
 protected:
  GeneratorSecurityTest() {
    EXPECT_TRUE(
        WriteFileAtomically(folder_ / "keys.json",
                            KeyFile({KeyEntry("page", "page", R"("role":"read","collections":["news"],"tokens_max":5)"),
                                     KeyEntry("all", "all", R"("role":"read")")}))
            .ok());
    auto access = AccessControl::Open(folder_ / "keys.json");
    EXPECT_TRUE(access.ok()) << access.status();
    GeneratorOptions options;
    options.server.access = *std::move(access);
    Serve(retriever_.address(), {}, std::chrono::milliseconds(3000), options);
  }

  // Whoever calls from now on has this key.
  void Use(const std::string& key) {
    ClientSecurity security;
    security.api_key = key;
    const auto channel = MakeChannel("127.0.0.1:" + std::to_string(generator_->port()), security, {});
    ASSERT_TRUE(channel.ok()) << channel.status();
    stub_ = pb::GeneratorService::NewStub(*channel);
  }
  absl::Status GenerateFrom(const std::string& collection, uint32_t tokens) {
    auto request = Request("a prompt of ten words", tokens);
    request.mutable_retrieval()->set_collection(collection);
    return Generate(request).status;
  }
  absl::Status ScoreWith(const std::string& collection) {
    pb::ScoreRequest request;
    auto& item = *request.add_items();
    item.set_context_text("a prompt of ten words");
    item.set_continuation_text("and more");
    request.mutable_retrieval()->set_collection(collection);
    grpc::ClientContext context;
    pb::ScoreResponse response;
    return FromGrpcStatus(stub_->Score(&context, request, &response));
  }

  TemporaryFolder folder_;
};

TEST_F(GeneratorSecurityTest, EveryMethodWantsAKey) {
  const auto answers = CallEveryMethod(channel_, {pb::GenerateRequest::descriptor()->file()});
  EXPECT_GE(answers.size(), 3U);
  for (const auto& [method, status] : answers) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << method << ": " << status;
    EXPECT_EQ(ReasonOf(status), Reason::kUnauthenticated) << method;
  }
}

TEST_F(GeneratorSecurityTest, AKeyReadsItsCollectionsAlone) {
  Use("page");
  EXPECT_TRUE(GenerateFrom("news", 4).ok());
  EXPECT_TRUE(ScoreWith("news").ok());
  const size_t asked = retriever_.requests().size();
  EXPECT_EQ(ReasonOf(GenerateFrom("secrets", 4)), Reason::kPermissionDenied);
  EXPECT_EQ(ReasonOf(GenerateFrom("", 4)), Reason::kPermissionDenied);
  EXPECT_EQ(ReasonOf(ScoreWith("secrets")), Reason::kPermissionDenied);
  EXPECT_EQ(retriever_.requests().size(), asked) << "the retriever, which trusts the generator, was asked";
  Use("all");
  EXPECT_TRUE(GenerateFrom("secrets", 4).ok());
}

TEST_F(GeneratorSecurityTest, AKeyGeneratesSoManyTokens) {
  Use("page");
  EXPECT_TRUE(GenerateFrom("news", 5).ok());
  EXPECT_EQ(ReasonOf(GenerateFrom("news", 6)), Reason::kPermissionDenied);
  Use("all");
  EXPECT_TRUE(GenerateFrom("news", 6).ok());
}

TEST_F(GeneratorSecurityTest, WhoNamesNoNumberGetsAsManyTokensAsTheKeyAllows) {
  auto request = Request("a prompt of ten words", 1);
  request.clear_max_tokens();
  request.mutable_retrieval()->set_collection("news");
  Use("page");
  const Stream bounded = Generate(request);
  EXPECT_TRUE(bounded.status.ok()) << bounded.status;
  EXPECT_EQ(bounded.tokens.size(), 5U);
  Use("all");
  EXPECT_EQ(Generate(request).tokens.size(), 128U - 21U);  // what fits the context
}

}  // namespace
}  // namespace retro
