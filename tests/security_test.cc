// What a retriever refuses: calls without a key, with another's key, for more than the key is for; connections without
// TLS, with certificates that are not of its authority or have expired. And keys and certificates that are replaced.

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/strings.h"
#include "common/rpc/access.h"
#include "common/rpc/credentials.h"
#include "common/rpc/log.h"
#include "common/rpc/status.h"
#include "retriever_service/embed/hash_embedder.h"
#include "retriever_service/retriever.h"
#include "retro/admin/v1/admin.grpc.pb.h"
#include "retro/retriever/v1/retriever.grpc.pb.h"
#include "tests/doors.h"
#include "tests/temporary_folder.h"
#include "tests/test_certificates.h"
#include "tests/test_paths.h"

namespace retro {
namespace {

namespace pb = retriever::v1;

constexpr int kDimension = 16;
constexpr std::chrono::seconds kWait{30};  // for what takes a second or two

// Whether `condition` comes true.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kWait;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

class SecurityTest : public testing::Test {
 protected:
  void TearDown() override {
    if (retriever_ != nullptr) retriever_->Stop();
  }

  std::string Write(const std::string& name, const std::string& content) {
    EXPECT_TRUE(WriteFileAtomically(folder_ / name, content).ok());
    return folder_ / name;
  }

  void WriteKeys(const std::vector<std::string>& entries) { Write("keys.json", KeyFile(entries)); }

  void Serve() {
    RetrieverOptions options;
    options.data = folder_ / "store";
    options.tokenizer = SourcePath("common/tokenizer/retro-16k.model");
    auto retriever = Retriever::Start(options, server_, std::make_unique<HashEmbedder>(kDimension), metrics_);
    ASSERT_TRUE(retriever.ok()) << retriever.status();
    retriever_ = *std::move(retriever);
    address_ = StrCat("127.0.0.1:", retriever_->port());
  }

  absl::Status EndOfStreamWhenKeyBecomes(const std::string& key);
  void ServeWithKeys(const std::vector<std::string>& entries) {
    WriteKeys(entries);
    auto access = AccessControl::Open(folder_ / "keys.json");
    ASSERT_TRUE(access.ok()) << access.status();
    server_.access = *std::move(access);
    Serve();
  }

  // On the certificate of `authority` for a server of that name.
  void ServeWithTls(const TestAuthority& authority) {
    WriteServerIdentity(authority.Sign("server"));
    server_.tls.certificate = folder_ / "server.pem";
    server_.tls.key = folder_ / "server.key";
    Serve();
  }

  void WriteServerIdentity(const TestIdentity& identity) {
    Write("server.key", identity.key);
    Write("server.pem", identity.certificate);
  }

  ClientSecurity Trusting(const TestAuthority& authority) {
    ClientSecurity security;
    security.ca = Write("trusted.pem", authority.certificate());
    return security;
  }

  std::shared_ptr<grpc::Channel> Channel(const ClientSecurity& security) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // each a connection of its own
    auto channel = MakeChannel(address_, security, arguments);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return *std::move(channel);
  }

  static ClientSecurity WithKey(const std::string& key) {
    ClientSecurity security;
    security.api_key = key;
    return security;
  }

  // Stats is the simplest of calls.
  absl::Status Call(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kWait);
    pb::StatsResponse response;
    return FromGrpcStatus(pb::RetrieverService::NewStub(channel)->Stats(&context, {}, &response));
  }
  absl::Status Call(const ClientSecurity& security) { return Call(Channel(security)); }

  absl::Status Upsert(const ClientSecurity& security, const std::string& collection) {
    pb::UpsertDocumentsRequest request;
    request.set_collection(collection);
    auto& document = *request.add_writes()->mutable_document();
    document.set_id("a");
    document.set_text("text");
    grpc::ClientContext context;
    pb::UpsertDocumentsResponse response;
    return FromGrpcStatus(
        pb::RetrieverService::NewStub(Channel(security))->UpsertDocuments(&context, request, &response));
  }

  static void ExpectRefused(const absl::Status& status, absl::StatusCode code, Reason reason) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(ReasonOf(status), reason) << status;
  }

  TemporaryFolder folder_;
  ServerOptions server_;
  Metrics metrics_;
  std::unique_ptr<Retriever> retriever_;
  std::string address_;
};

const char kRead[] = R"("role":"read")";
const char kWrite[] = R"("role":"write")";

TEST_F(SecurityTest, EveryMethodWantsAKey) {
  ServeWithKeys({KeyEntry("reader", "right", kRead)});
  const auto answers = CallEveryMethod(
      Channel({}), {pb::SearchRequest::descriptor()->file(), admin::v1::VerifyRequest::descriptor()->file()});
  EXPECT_GE(answers.size(), 24U);
  for (const auto& [method, status] : answers) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << method << ": " << status;
  }
}

TEST_F(SecurityTest, AWrongKeyIsRefusedAndTheRightOneIsNot) {
  ServeWithKeys({KeyEntry("reader", "right", kRead)});
  EXPECT_TRUE(Call(WithKey("right")).ok());
  ExpectRefused(Call(WithKey("wrong")), absl::StatusCode::kUnauthenticated, Reason::kUnauthenticated);
  ExpectRefused(Call(WithKey("")), absl::StatusCode::kUnauthenticated, Reason::kUnauthenticated);
  ExpectRefused(Call(WithKey(HexEncode(Sha256Bytes("right")))), absl::StatusCode::kUnauthenticated,
                Reason::kUnauthenticated);
}

// Which would be sent the key.
TEST_F(SecurityTest, WithoutTlsNoProxyOfTheEnvironmentIsUsed) {
  ServeWithKeys({KeyEntry("reader", "right", kRead)});
  ASSERT_EQ(setenv("http_proxy", "http://127.0.0.1:1", /*overwrite=*/1), 0);  // nobody is there
  EXPECT_TRUE(Call(WithKey("right")).ok());
  unsetenv("http_proxy");
}

TEST_F(SecurityTest, RolesContainEachOther) {
  ServeWithKeys(
      {KeyEntry("reader", "r", kRead), KeyEntry("writer", "w", kWrite), KeyEntry("admin", "a", R"("role":"admin")")});
  ExpectRefused(Upsert(WithKey("r"), ""), absl::StatusCode::kPermissionDenied, Reason::kPermissionDenied);
  EXPECT_TRUE(Upsert(WithKey("w"), "").ok());
  EXPECT_TRUE(Upsert(WithKey("a"), "").ok());
  EXPECT_TRUE(Call(WithKey("w")).ok());
  for (const char* key : {"r", "w", "a"}) {
    grpc::ClientContext context;
    admin::v1::CompactResponse response;
    const absl::Status status = FromGrpcStatus(admin::v1::AdminService::NewStub(Channel(WithKey(key)))
                                                   ->Compact(&context, admin::v1::CompactRequest(), &response));
    EXPECT_EQ(absl::IsPermissionDenied(status), std::string(key) != "a") << key << ": " << status;
  }
}

TEST_F(SecurityTest, AKeyIsForItsCollectionsAlone) {
  ServeWithKeys({KeyEntry("news", "n", StrCat(kWrite, R"(,"collections":["news"])"))});
  ExpectRefused(Upsert(WithKey("n"), ""), absl::StatusCode::kPermissionDenied, Reason::kPermissionDenied);
  // It gets past the key, and then there is no such collection.
  EXPECT_FALSE(absl::IsPermissionDenied(Upsert(WithKey("n"), "news")));

  const auto stub = pb::RetrieverService::NewStub(Channel(WithKey("n")));
  grpc::ClientContext context;
  const auto stream = stub->Ingest(&context);
  pb::IngestRequest request;
  request.set_sequence(7);
  request.mutable_write()->mutable_document()->set_id("a");
  request.mutable_write()->mutable_document()->set_text("text");
  ASSERT_TRUE(stream->Write(request));
  pb::IngestResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.sequence(), 7u);
  EXPECT_EQ(response.result().error().reason(), "PERMISSION_DENIED");
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(SecurityTest, AKeyHasSoManyCallsAtOnce) {
  ServeWithKeys({KeyEntry("one", "k", StrCat(kWrite, R"(,"streams_max":1)"))});
  const auto stub = pb::RetrieverService::NewStub(Channel(WithKey("k")));
  {
    grpc::ClientContext context;
    const auto stream = stub->Ingest(&context);
    pb::IngestRequest request;
    request.mutable_write()->mutable_document()->set_id("a");
    request.mutable_write()->mutable_document()->set_text("text");
    ASSERT_TRUE(stream->Write(request));
    pb::IngestResponse response;
    ASSERT_TRUE(stream->Read(&response)) << "it has the place";
    const absl::Status status = Call(WithKey("k"));
    ExpectRefused(status, absl::StatusCode::kResourceExhausted, Reason::kKeyLimit);
    EXPECT_TRUE(RetryAfterOf(status).has_value());
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
  }
  EXPECT_TRUE(Eventually([&] { return Call(WithKey("k")).ok(); })) << "its place is free again";
}

TEST(AccessControlTest, ARateIsABucketThatFills) {
  TemporaryFolder folder;
  const std::string entry = KeyEntry("k", "key", R"("role":"read","requests_per_second_max":2)");
  ASSERT_TRUE(WriteFileAtomically(folder / "keys", StrCat(R"({"keys":[)", entry, "]}")).ok());
  auto now = std::chrono::steady_clock::now();
  const auto access = *AccessControl::Open(folder / "keys", [&now] { return now; });
  EXPECT_TRUE(access->Admit("Bearer key", "Search").ok());
  EXPECT_TRUE(access->Admit("Bearer key", "Search").ok());
  const absl::Status status = access->Admit("Bearer key", "Search").status();
  EXPECT_EQ(ReasonOf(status), Reason::kKeyLimit);
  EXPECT_EQ(RetryAfterOf(status), std::chrono::milliseconds(500));
  now += std::chrono::milliseconds(500);
  EXPECT_TRUE(access->Admit("Bearer key", "Search").ok());
  EXPECT_FALSE(access->Admit("Bearer key", "Search").ok());
  now += std::chrono::hours(1);
  for (const bool admitted : {true, true, false}) EXPECT_EQ(access->Admit("Bearer key", "Search").ok(), admitted);
}

TEST(AccessControlTest, WhatIsNoKeyFileIsRefusedAndSaysWhere) {
  const std::string good = KeyEntry("a", "key", kRead);
  EXPECT_TRUE(ParseApiKeys(StrCat(R"({"keys":[)", good, "]}")).ok());
  for (const auto& [text, word] : std::vector<std::pair<std::string, std::string>>{
           {"", "JSON"},
           {"[]", "keys"},
           {R"({"keys":[],"more":1})", "nothing else"},
           {R"({"keys":[{"name":"a","role":"read"}]})", "sha256 is missing"},
           {R"({"keys":[{"name":"a","role":"read","sha256":"xy"}]})", "64 hexadecimal"},
           {StrCat(R"({"keys":[)", KeyEntry("a", "k", R"("role":"king")"), "]}"), "role"},
           {StrCat(R"({"keys":[)", KeyEntry("a", "k", R"("role":"read","rate":1)"), "]}"), "'rate'"},
           {StrCat(R"({"keys":[)", KeyEntry("a", "k", R"("role":"read","streams_max":0)"), "]}"), "streams_max"},
           {StrCat(R"({"keys":[)", KeyEntry("a", "k", R"("role":"admin","collections":[])"), "]}"), "admin"},
           {StrCat(R"({"keys":[)", good, ",", KeyEntry("a", "other", kRead), "]}"), "keys[1]: the name"},
           {StrCat(R"({"keys":[)", good, ",", KeyEntry("b", "key", kRead), "]}"), "keys[1]: the hash"}}) {
    const absl::Status status = ParseApiKeys(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_NE(std::string(status.message()).find(word), std::string::npos) << text << ": " << status;
  }
}

TEST_F(SecurityTest, KeysAreReplacedWhileItServes) {
  ServeWithKeys({KeyEntry("old", "old", kRead)});
  const std::string key_file = Write("client.key", "old\n");
  ClientSecurity from_file;
  from_file.api_key_file = key_file;
  const auto channel = Channel(from_file);
  EXPECT_TRUE(Call(channel).ok());
  WriteKeys({KeyEntry("new", "new", kRead)});
  EXPECT_TRUE(Eventually([&] { return Call(WithKey("new")).ok(); }));
  ExpectRefused(Call(WithKey("old")), absl::StatusCode::kUnauthenticated, Reason::kUnauthenticated);
  Write("client.key", "new\n");
  EXPECT_TRUE(Eventually([&] { return Call(channel).ok(); })) << "the client reads its file again";
  Write("keys.json", "no key file");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // past the next look at the file
  EXPECT_TRUE(Call(WithKey("new")).ok()) << "a broken file changes nothing";
}

// What ends an open stream once the file of keys has only `key`.
absl::Status SecurityTest::EndOfStreamWhenKeyBecomes(const std::string& key) {
  ServeWithKeys({KeyEntry("writer", "old", kWrite)});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kWait);
  const auto stub = pb::RetrieverService::NewStub(Channel(WithKey("old")));
  const auto stream = stub->Ingest(&context);
  pb::IngestRequest request;
  request.mutable_write()->mutable_document()->set_id("a");
  request.mutable_write()->mutable_document()->set_text("text");
  pb::IngestResponse response;
  EXPECT_TRUE(stream->Write(request) && stream->Read(&response));
  EXPECT_EQ(response.result().error().code(), 0) << "it is admitted as long as its key is there";
  WriteKeys({key});
  const bool ended = Eventually([&] { return !(stream->Write(request) && stream->Read(&response)); });
  EXPECT_TRUE(ended) << "an hour-long stream would go on writing";
  return FromGrpcStatus(stream->Finish());
}

TEST_F(SecurityTest, AStreamEndsWithItsKey) {
  ExpectRefused(EndOfStreamWhenKeyBecomes(KeyEntry("writer", "new", kWrite)), absl::StatusCode::kUnauthenticated,
                Reason::kUnauthenticated);
}

TEST_F(SecurityTest, AStreamEndsWhenItsKeyIsForOtherCollections) {
  ExpectRefused(EndOfStreamWhenKeyBecomes(KeyEntry("writer", "old", StrCat(kWrite, R"(,"collections":["news"])"))),
                absl::StatusCode::kPermissionDenied, Reason::kPermissionDenied);
}

// What the audit log says while `calls` are made.
template <typename Calls>
std::string Audited(const Calls& calls) {
  EXPECT_TRUE(StartLogging({.level = "error", .format = "text"}).ok());
  testing::internal::CaptureStderr();
  calls();
  return testing::internal::GetCapturedStderr();
}

TEST_F(SecurityTest, TheAuditLogSaysWhoWasRefused) {
  ServeWithKeys({KeyEntry("reader", "read", kRead)});
  const auto channel = Channel(WithKey("read"));
  const std::string log = Audited([&] {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "the-call");
    admin::v1::CompactResponse response;
    const grpc::Status status = admin::v1::AdminService::NewStub(channel)->Compact(&context, {}, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  });
  EXPECT_NE(log.find("audit method=admin.Compact key=reader peer=ipv4:127.0.0.1:"), std::string::npos) << log;
  EXPECT_NE(log.find("code=PERMISSION_DENIED request_id=the-call"), std::string::npos) << log;
}

TEST_F(SecurityTest, StrangersDoNotFillTheAuditLog) {
  ServeWithKeys({KeyEntry("reader", "read", kRead)});
  const auto stub = admin::v1::AdminService::NewStub(Channel({}));
  const auto begin = std::chrono::steady_clock::now();
  constexpr int kCalls = 2000;
  const std::string log = Audited([&] {
    for (int i = 0; i < kCalls; ++i) {
      grpc::ClientContext context;
      admin::v1::CompactResponse response;
      EXPECT_EQ(stub->Compact(&context, {}, &response).error_code(), grpc::StatusCode::UNAUTHENTICATED);
    }
  });
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begin);
  const auto lines = std::count(log.begin(), log.end(), '\n');
  EXPECT_GE(lines, 1);
  EXPECT_LE(lines, 10 * (seconds.count() + 2)) << "of " << kCalls;
}

TEST_F(SecurityTest, WhatTheAuditLogSaysOfARequestIsBounded) {
  Serve();
  pb::DeleteDocumentsRequest request;
  request.add_document_ids(std::string(4 << 20, '\x01'));
  for (int i = 0; i < 1000; ++i) request.add_document_ids("a");
  // A text that is itself a message of groups: on suspicion it would be parsed, and be thirty times as large.
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(1000, "\x7b\x7c\x7b\x7c");
  const auto stub = pb::RetrieverService::NewStub(Channel({}));
  const std::string log = Audited([&] {
    grpc::ClientContext context;
    pb::DeleteDocumentsResponse response;
    EXPECT_EQ(stub->DeleteDocuments(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  });
  EXPECT_NE(log.find("request=document_ids: \"\\001"), std::string::npos) << log.substr(0, 500);
  EXPECT_LT(log.size(), 2048) << log.size();
}

TEST_F(SecurityTest, ALongCollectionIsAWrongFieldAndNotALostError) {
  Serve();
  const std::string name(32 << 10, 'x');
  ExpectRefused(Upsert({}, name), absl::StatusCode::kInvalidArgument, Reason::kInvalidField);
}

TEST_F(SecurityTest, WhatCannotBeSentIsNoApiKey) {
  ServeWithKeys({KeyEntry("old", "old", kRead)});
  for (const char* wrong : {"two words", "caf\xc3\xa9", "a\x01", "a\nb"}) {
    ClientSecurity from_file;
    from_file.api_key_file = Write("wrong.key", wrong);
    for (const ClientSecurity& security : {from_file, WithKey(wrong)}) {
      const auto channel = MakeChannel(address_, security, {});
      EXPECT_TRUE(absl::IsInvalidArgument(channel.status())) << channel.status();
    }
  }
  // gRPC would end the process over it, so a file that goes bad changes nothing.
  ClientSecurity from_file;
  from_file.api_key_file = Write("client.key", "old");
  const auto channel = Channel(from_file);
  EXPECT_TRUE(Call(channel).ok());
  Write("client.key", "caf\xc3\xa9");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // past the next look at the file
  EXPECT_TRUE(Call(channel).ok());
}

TEST_F(SecurityTest, TlsAndItsRefusals) {
  const TestAuthority ours("ours"), other("other");
  ServeWithTls(ours);
  EXPECT_TRUE(Call(Trusting(ours)).ok());
  EXPECT_EQ(Call(ClientSecurity()).code(), absl::StatusCode::kUnavailable) << "plaintext to a TLS port";
  EXPECT_EQ(Call(Trusting(other)).code(), absl::StatusCode::kUnavailable) << "signed by another authority";
}

TEST_F(SecurityTest, TlsToAPlaintextPort) {
  const TestAuthority ours("ours");
  Serve();
  EXPECT_EQ(Call(Trusting(ours)).code(), absl::StatusCode::kUnavailable);
}

TEST_F(SecurityTest, MutualTls) {
  const TestAuthority ours("ours"), clients("clients");
  server_.tls.client_ca = Write("client_ca.pem", clients.certificate());
  ServeWithTls(ours);
  const auto with = [&](const TestIdentity& identity) {
    ClientSecurity security = Trusting(ours);
    security.certificate = Write("client.pem", identity.certificate);
    security.key = Write("client.key", identity.key);
    return security;
  };
  EXPECT_TRUE(Call(with(clients.Sign("client"))).ok());
  EXPECT_EQ(Call(Trusting(ours)).code(), absl::StatusCode::kUnavailable) << "no certificate";
  EXPECT_EQ(Call(with(ours.Sign("client"))).code(), absl::StatusCode::kUnavailable) << "of another authority";
  // Made by hand, as MakeChannel would not take it.
  const TestIdentity expired = clients.Sign("client", std::chrono::seconds(-60));
  grpc::SslCredentialsOptions options{ours.certificate(), expired.key, expired.certificate};
  EXPECT_EQ(Call(grpc::CreateChannel(address_, grpc::SslCredentials(options))).code(), absl::StatusCode::kUnavailable);
}

TEST_F(SecurityTest, CertificatesAreReplacedWhileItServes) {
  const TestAuthority old_authority("old"), new_authority("new");
  ServeWithTls(old_authority);
  const ClientSecurity trusts_old = Trusting(old_authority);
  const auto connected = Channel(trusts_old);
  EXPECT_TRUE(Call(connected).ok());
  ClientSecurity trusts_new;
  trusts_new.ca = Write("new_ca.pem", new_authority.certificate());
  EXPECT_FALSE(Call(trusts_new).ok());
  WriteServerIdentity(new_authority.Sign("server"));
  EXPECT_TRUE(Eventually([&] { return Call(trusts_new).ok(); }));
  EXPECT_FALSE(Call(trusts_old).ok());
  EXPECT_TRUE(Call(connected).ok()) << "a connection goes on with what it has";
  WriteServerIdentity(new_authority.Sign("server", std::chrono::seconds(-60)));
  EXPECT_TRUE(Eventually([&] { return absl::IsUnavailable(Call(trusts_new)); })) << "an expired one is refused";
}

TEST_F(SecurityTest, CertificatesThatAreHalfReplacedChangeNothing) {
  const TestAuthority authority("it");
  ServeWithTls(authority);
  const ClientSecurity client = Trusting(authority);
  const TestIdentity next = authority.Sign("server", std::chrono::hours(2));
  const auto served = ServedCertificateExpiry(server_.tls).value();
  const auto stays_for_a_while = [&] {  // longer than both ours and gRPC's looks are apart
    std::this_thread::sleep_for(std::chrono::milliseconds(2500));
    return Call(Channel(client)).ok();
  };
  Write("server.pem", "");  // as while somebody writes it, which ends gRPC's own reader with the process
  EXPECT_TRUE(stays_for_a_while());
  Write("server.pem", next.certificate);  // without its key
  EXPECT_TRUE(stays_for_a_while());
  EXPECT_EQ(ServedCertificateExpiry(server_.tls).value(), served) << "and not the file's";
  Write("server.key", next.key);
  EXPECT_TRUE(stays_for_a_while());
  EXPECT_NE(ServedCertificateExpiry(server_.tls).value(), served);
}

TEST_F(SecurityTest, WhatCannotServeIsToldAtTheStart) {
  const TestAuthority ours("ours");
  const TestIdentity good = ours.Sign("server"), other = ours.Sign("other");
  const std::string certificate = Write("a.pem", good.certificate), key = Write("a.key", good.key);
  EXPECT_TRUE(CheckServerTls({certificate, key, certificate}).ok());
  EXPECT_EQ(FieldOf(CheckServerTls({certificate, "", ""})), "--tls-key");
  EXPECT_EQ(FieldOf(CheckServerTls({"", key, ""})), "--tls-certificate");
  EXPECT_EQ(FieldOf(CheckServerTls({"", "", certificate})), "--tls-client-ca");
  EXPECT_EQ(FieldOf(CheckServerTls({certificate, Write("b.key", other.key), ""})), "--tls-key");
  EXPECT_EQ(FieldOf(CheckServerTls({key, key, ""})), "--tls-certificate");
  const TestIdentity expired = ours.Sign("server", std::chrono::seconds(-60));
  EXPECT_EQ(FieldOf(CheckServerTls({Write("c.pem", expired.certificate), Write("c.key", expired.key), ""})),
            "--tls-certificate");
  const auto channel = MakeChannel("10.0.0.1:7700", WithKey("k"), {});
  EXPECT_EQ(FieldOf(channel.status()), "--tls-ca") << "a key would go out in plaintext";
}

}  // namespace
}  // namespace retro
