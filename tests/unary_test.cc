#include "common/rpc/unary.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/rpc/credentials.h"
#include "common/rpc/log.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "retriever_service/shard/shard_service.h"
#include "retro/shard/v1/shard.grpc.pb.h"
#include "tests/doors.h"
#include "tests/temporary_folder.h"
#include "tests/unread_call.h"

namespace retro {
namespace {

namespace spb = shard::v1;
using std::chrono::milliseconds;

// Stats waits for its turn; Search notes its thread; GetDocument holds a MiB for each byte of the id; GetChunks gives
// so many MiB; nothing else is called.
class SlowShard : public Shard {
 public:
  absl::StatusOr<spb::StatsResponse> Stats(const spb::StatsRequest&, const CallContext&) override {
    const MutexLock lock(mutex_);
    ++begun_;
    changed_.NotifyAll();
    while (turns_ == 0) changed_.Wait(mutex_);
    --turns_;
    return spb::StatsResponse();
  }
  void AwaitBegun(int calls) {
    const MutexLock lock(mutex_);
    while (begun_ < calls) changed_.Wait(mutex_);
  }
  void GiveTurns(int turns) {
    const MutexLock lock(mutex_);
    turns_ += turns;
    changed_.NotifyAll();
  }

  absl::StatusOr<spb::SearchResponse> Search(const spb::SearchRequest&, const CallContext&) override {
    searched_on = std::this_thread::get_id();
    return spb::SearchResponse();
  }
  absl::StatusOr<spb::WriteResponse> Write(const spb::WriteRequest&, const CallContext&) override { return None(); }
  absl::StatusOr<spb::DeleteResponse> Delete(const spb::DeleteRequest&, const CallContext&) override { return None(); }
  absl::StatusOr<spb::CreateCollectionResponse> CreateCollection(const spb::CreateCollectionRequest&,
                                                                 const CallContext&) override {
    return None();
  }
  absl::StatusOr<spb::DropCollectionResponse> DropCollection(const spb::DropCollectionRequest&,
                                                             const CallContext&) override {
    return None();
  }
  absl::StatusOr<spb::GetDocumentResponse> GetDocument(const spb::GetDocumentRequest& request,
                                                       const CallContext& context) override {
    for (size_t i = 0; i < request.document_id().size(); ++i) RETRO_RETURN_IF_ERROR(context.Hold(size_t{1} << 20));
    return spb::GetDocumentResponse();
  }
  absl::StatusOr<spb::GetChunksResponse> GetChunks(const spb::GetChunksRequest& request, const CallContext&) override {
    spb::GetChunksResponse response;
    response.add_chunks()->set_text(std::string(request.max_chunks() << 20, 'x'));
    return response;
  }
  absl::StatusOr<spb::ListDocumentsResponse> ListDocuments(const spb::ListDocumentsRequest&,
                                                           const CallContext&) override {
    return None();
  }
  absl::StatusOr<spb::GetShardInfoResponse> GetShardInfo(const spb::GetShardInfoRequest&, const CallContext&) override {
    return None();
  }

  std::atomic<std::thread::id> searched_on;

 private:
  static absl::Status None() { return absl::UnimplementedError("not called"); }

  Mutex mutex_;
  CondVar changed_;
  int begun_ ABSL_GUARDED_BY(mutex_) = 0;
  int turns_ ABSL_GUARDED_BY(mutex_) = 0;
};

class UnaryTest : public testing::Test {
 protected:
  explicit UnaryTest(const UnaryOptions& options = {})
      : workers_(1, 3), service_(MakeShardService(shard_, workers_, metrics_, options)) {
    auto server = RpcServer::Start({}, {service_.get()});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = spb::ShardService::NewStub(grpc::CreateCustomChannel(StrCat("127.0.0.1:", server_->port()),
                                                                 grpc::InsecureChannelCredentials(), AnySize()));
  }
  static grpc::ChannelArguments AnySize() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    return arguments;
  }
  ~UnaryTest() override {
    shard_.GiveTurns(1000);
    server_.reset();
    workers_.Stop();
  }

  absl::Status Call(milliseconds deadline = std::chrono::minutes(1)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    spb::StatsResponse response;
    return FromGrpcStatus(stub_->Stats(&context, {}, &response));
  }
  std::future<absl::Status> CallBeside(milliseconds deadline = std::chrono::minutes(1)) {
    return std::async(std::launch::async, [this, deadline] { return Call(deadline); });
  }
  void AwaitQueued(size_t calls) {
    while (workers_.queued() < calls) std::this_thread::sleep_for(milliseconds(1));
  }

  SlowShard shard_;
  WorkerPool workers_;
  Metrics metrics_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<spb::ShardService::Stub> stub_;
};

TEST_F(UnaryTest, WhoFindsTheQueueFullIsToldAtOnceWhenToComeBack) {
  std::vector<std::future<absl::Status>> taken;
  taken.push_back(CallBeside());
  shard_.AwaitBegun(1);
  for (size_t i = 1; i <= 3; ++i) {
    taken.push_back(CallBeside());
    AwaitQueued(i);
  }
  const absl::Status refused = Call();
  EXPECT_EQ(ReasonOf(refused), Reason::kQueueFull) << refused;
  EXPECT_TRUE(RetryAfterOf(refused).has_value());
  shard_.GiveTurns(4);
  for (auto& call : taken) EXPECT_TRUE(call.get().ok());
}

TEST_F(UnaryTest, WhatAnAnswerTakesIsBoundedAndGivenBack) {
  const auto take = [this](size_t mebibytes) {
    grpc::ClientContext context;
    spb::GetDocumentRequest request;
    request.set_document_id(std::string(mebibytes, 'x'));
    spb::GetDocumentResponse response;
    return FromGrpcStatus(stub_->GetDocument(&context, request, &response));
  };
  for (int i = 0; i < 3; ++i) {
    while (!take(200).ok()) std::this_thread::sleep_for(milliseconds(1));  // what the last one held comes back
    EXPECT_EQ(ReasonOf(take(300)), Reason::kQueueFull);
  }
}

class SmallMemoryTest : public UnaryTest {
 protected:
  static constexpr uint32_t kMebibytes = 8;
  SmallMemoryTest() : UnaryTest({.bytes_max = kMebibytes << 20, .peer_wait_max = milliseconds(2000)}) {}
};

TEST_F(SmallMemoryTest, WhatAReplyHoldsThatNobodyReadsIsGivenBack) {
  spb::GetChunksRequest request;
  request.set_max_chunks(kMebibytes - 2);
  const UnreadCall unread(StrCat("127.0.0.1:", server_->port()), "/retro.shard.v1.ShardService/GetChunks", request);
  const auto another = [&] {
    grpc::ClientContext another_context;
    spb::GetChunksResponse response;
    return FromGrpcStatus(stub_->GetChunks(&another_context, request, &response));
  };
  absl::Status status = another();
  EXPECT_EQ(ReasonOf(status), Reason::kQueueFull) << status;
  while (ReasonOf(status) == Reason::kQueueFull) status = another();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(SmallMemoryTest, AWriteThatCanNeverFitIsAWrongOne) {
  grpc::ClientContext context;
  spb::WriteResponse response;
  const auto writer = stub_->WriteInParts(&context, &response);
  spb::WriteRequest part;
  part.add_changes()->mutable_document()->set_text(std::string((kMebibytes << 20) / 2 + 1, 'x'));
  writer->Write(part);
  writer->Write(part);
  writer->WritesDone();
  const absl::Status status = FromGrpcStatus(writer->Finish());
  EXPECT_EQ(FieldOf(status), "changes") << status;
}

TEST_F(UnaryTest, WhoseCallerHasLeftIsNotWorkedOn) {
  constexpr milliseconds kPatience{1000};
  auto first = CallBeside();
  shard_.AwaitBegun(1);
  auto leaves = CallBeside(kPatience);
  AwaitQueued(1);
  std::this_thread::sleep_for(kPatience * 3 / 2);  // by the server's count too, from when it came, rounded up
  EXPECT_TRUE(absl::IsDeadlineExceeded(leaves.get()));
  shard_.GiveTurns(2);
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(Call().ok());  // takes the second turn: the one that left did not
}

TEST_F(UnaryTest, WhoWouldBeLateIsRefusedBeforeItWaits) {
  constexpr milliseconds kWait{1000};
  auto first = CallBeside();
  shard_.AwaitBegun(1);
  auto waits = CallBeside();
  AwaitQueued(1);
  std::this_thread::sleep_for(kWait);
  shard_.GiveTurns(1);  // the second one is taken out, after so long a wait
  shard_.AwaitBegun(2);
  auto patient = CallBeside();
  AwaitQueued(1);
  const absl::Status late = Call(kWait);
  EXPECT_EQ(ReasonOf(late), Reason::kQueueFull) << late;
  EXPECT_GE(RetryAfterOf(late).value_or(milliseconds(0)), kWait);
  auto patient_too = CallBeside();
  AwaitQueued(2);
  shard_.GiveTurns(3);
  for (auto* call : {&first, &waits, &patient, &patient_too}) EXPECT_TRUE(call->get().ok());
  shard_.GiveTurns(1);
  EXPECT_TRUE(Call(std::chrono::seconds(20)).ok()) << "nobody waits: the old wait says nothing";
}

TEST_F(UnaryTest, OfAShorterQueueLessIsExpected) {
  std::vector<std::future<absl::Status>> calls;
  calls.push_back(CallBeside());
  shard_.AwaitBegun(1);
  const auto before = std::chrono::steady_clock::now();
  for (size_t waiting = 1; waiting <= 3; ++waiting) {
    calls.push_back(CallBeside());
    AwaitQueued(waiting);
  }
  std::this_thread::sleep_for(std::chrono::seconds(2));
  shard_.GiveTurns(3);
  shard_.AwaitBegun(4);  // one that waited behind two others
  const auto wait_at_most = std::chrono::steady_clock::now() - before;
  calls.push_back(CallBeside());
  AwaitQueued(1);
  // Behind one it would wait two thirds as long, of which the first deadline is less than twice; the second is more,
  // and less than twice the whole.
  EXPECT_EQ(ReasonOf(Call(milliseconds(2000))), Reason::kQueueFull);
  calls.push_back(CallBeside(std::chrono::duration_cast<milliseconds>(wait_at_most * 5 / 3)));
  while (workers_.queued() < 2 && calls.back().wait_for(milliseconds(1)) == std::future_status::timeout) {
  }
  shard_.GiveTurns(3);
  for (auto& call : calls) EXPECT_TRUE(call.get().ok());
}

// gRPC's own threads are few, and take in everything that comes.
TEST_F(UnaryTest, OnlyWhatIsShortRunsOnTheThreadThatBringsIt) {
  spb::SearchRequest by_lists, every_vector, that_waits;
  by_lists.mutable_effort()->set_level(0.5);
  every_vector.mutable_effort()->set_exact(true);
  that_waits = by_lists;
  that_waits.mutable_barrier()->mutable_max_wait()->set_seconds(60);
  std::vector<std::thread::id> threads;
  for (const spb::SearchRequest& request : {by_lists, every_vector, that_waits}) {
    grpc::ClientContext context;
    spb::SearchResponse response;
    ASSERT_TRUE(stub_->Search(&context, request, &response).ok());
    threads.push_back(shard_.searched_on);
  }
  EXPECT_EQ(threads[1], threads[2]) << "the only worker";
  EXPECT_NE(threads[0], threads[1]);
}

// The door of a shard, which routers alone should reach.
class KeyedShardTest : public UnaryTest {
 protected:
  KeyedShardTest() : UnaryTest({.access = SomeKeys()}) {}

  static std::shared_ptr<AccessControl> SomeKeys() {
    static const TemporaryFolder folder;
    const std::string keys =
        KeyFile({KeyEntry("router", "read", R"("role":"read")"),  //
                 KeyEntry("peer", "admin", R"("role":"admin")"), KeyEntry("other", "other", R"("role":"read")")});
    EXPECT_TRUE(WriteFileAtomically(folder / "keys.json", keys).ok());
    auto access = AccessControl::Open(folder / "keys.json");
    EXPECT_TRUE(access.ok()) << access.status();
    return *std::move(access);
  }
  std::shared_ptr<grpc::Channel> Channel(const std::string& key) {
    ClientSecurity security;
    security.api_key = key;
    auto channel = MakeChannel(StrCat("127.0.0.1:", server_->port()), security, {});
    EXPECT_TRUE(channel.ok()) << channel.status();
    return *std::move(channel);
  }
  std::map<std::string, absl::Status> CallAll(const std::string& key) {
    return CallEveryMethod(Channel(key), {spb::SearchRequest::descriptor()->file()});
  }
  std::future<absl::Status> CallAs(const std::string& key, milliseconds deadline = std::chrono::minutes(1)) {
    return std::async(std::launch::async, [this, key, deadline] {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + deadline);
      spb::StatsResponse response;
      return FromGrpcStatus(spb::ShardService::NewStub(Channel(key))->Stats(&context, {}, &response));
    });
  }
};

// Keys take turns, so the wait of one says nothing of another's.
TEST_F(KeyedShardTest, NobodyIsRefusedForWhatAnotherKeyWaits) {
  constexpr milliseconds kWait{3000};
  std::vector<std::future<absl::Status>> calls;
  calls.push_back(CallAs("read"));
  shard_.AwaitBegun(1);
  for (size_t waiting = 1; waiting <= 2; ++waiting) {
    calls.push_back(CallAs("read"));
    AwaitQueued(waiting);
  }
  std::this_thread::sleep_for(kWait);
  shard_.GiveTurns(1);
  shard_.AwaitBegun(2);  // after so long a wait
  calls.push_back(CallAs("other"));
  AwaitQueued(2);
  EXPECT_EQ(ReasonOf(CallAs("read", kWait * 3 / 2).get()), Reason::kQueueFull);
  calls.push_back(CallAs("other", kWait * 3 / 2));
  while (workers_.queued() < 3 && calls.back().wait_for(milliseconds(1)) == std::future_status::timeout) continue;
  shard_.GiveTurns(10);
  for (auto& call : calls) EXPECT_EQ(call.get(), absl::OkStatus());
}

TEST_F(KeyedShardTest, EveryMethodWantsAKey) {
  const auto answers = CallAll("");
  EXPECT_GE(answers.size(), 11U);
  for (const auto& [method, status] : answers) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << method << ": " << status;
  }
}

TEST_F(KeyedShardTest, AReaderChangesNothingAndPullsNothing) {
  shard_.GiveTurns(1);  // to Stats
  const auto answers = CallAll("read");
  for (const char* method : {"Write", "WriteInParts", "Delete", "PullChanges", "FetchSnapshot"}) {
    EXPECT_EQ(ReasonOf(answers.at(StrCat("retro.shard.v1.ShardService.", method))), Reason::kPermissionDenied)
        << method;
  }
  EXPECT_TRUE(answers.at("retro.shard.v1.ShardService.Stats").ok());
}

// As docs/security.md says: what changes or copies much; of what replicas do all the time, what is refused.
TEST_F(KeyedShardTest, TheAuditLogSaysWhoCopiesAStoreAndWhoIsRefused) {
  EXPECT_TRUE(StartLogging({.level = "error", .format = "text"}).ok());
  shard_.GiveTurns(2);  // to Stats
  testing::internal::CaptureStderr();
  const auto answers = CallAll("admin");
  CallAll("other");  // refusals of one key are logged up to ten a second
  const std::string log = testing::internal::GetCapturedStderr();
  const std::set<std::string> always = {"FetchSnapshot", "Delete", "CreateCollection", "DropCollection"};
  const std::set<std::string> if_refused = {"PullChanges", "KeepLog"};
  for (const auto& [name, status] : answers) {
    const std::string method = name.substr(name.rfind('.') + 1);
    const auto logged = [&](std::string_view key) {
      return log.find(StrCat("audit method=shard.", method, " key=", key, " peer=ipv4:127.0.0.1:")) !=
             std::string::npos;
    };
    EXPECT_EQ(logged("peer"), always.contains(method)) << method << "\n" << log;
    EXPECT_EQ(logged("other"), always.contains(method) || if_refused.contains(method)) << method << "\n" << log;
  }
}

}  // namespace
}  // namespace retro
