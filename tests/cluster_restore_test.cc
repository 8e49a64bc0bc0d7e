// Restores of a cluster of processes that are killed in the middle, and said again.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "common/base/strings.h"
#include "tests/cluster_documents.h"
#include "tests/cluster_processes.h"

namespace retro {
namespace {

namespace pb = retriever::v1;
using std::chrono::milliseconds;

constexpr int kRestored = 1200;   // so many that a restore takes its time
constexpr float kDeleted = 0.5F;  // progress of one that begins to write
constexpr int kTimesMax = 5;      // where the disk is quick, one may be through before it is looked at

admin::v1::Operation OperationOf(admin::v1::AdminService::Stub& admin, const std::string& id) {
  grpc::ClientContext context;
  SetDeadline(context, milliseconds(5000));
  admin::v1::GetOperationRequest request;
  request.set_operation_id(id);
  admin::v1::GetOperationResponse response;
  admin.GetOperation(&context, request, &response);  // of a router that was killed: nothing
  return response.operation();
}

bool IsUnderWay(const admin::v1::Operation& operation) {
  return operation.state() == admin::v1::OPERATION_STATE_RUNNING;
}

// One of each shard; their names.
std::vector<std::string> MakeSnapshots(admin::v1::AdminService::Stub& admin) {
  std::vector<std::string> names;
  for (uint32_t shard = 0; shard < 2; ++shard) {
    grpc::ClientContext context;
    admin::v1::CreateSnapshotRequest request;
    request.set_shard(shard);
    admin::v1::CreateSnapshotResponse response;
    const grpc::Status status = admin.CreateSnapshot(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    admin::v1::Operation operation = response.operation();
    while (IsUnderWay(operation)) operation = OperationOf(admin, operation.operation_id());
    EXPECT_EQ(operation.state(), admin::v1::OPERATION_STATE_SUCCEEDED) << operation.message();
    names.push_back(response.name());
  }
  return names;
}

admin::v1::Operation BeginRestore(admin::v1::AdminService::Stub& admin, const std::string& name) {
  grpc::ClientContext context;
  SetDeadline(context, milliseconds(5000));
  admin::v1::RestoreSnapshotRequest request;
  request.set_name(name);
  admin::v1::RestoreSnapshotResponse response;
  const grpc::Status status = admin.RestoreSnapshot(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.operation();
}

// How many documents have the title; none may have another than these two.
int CountTitles(pb::RetrieverService::Stub& stub, const std::string& title, const std::string& other) {
  int count = 0;
  for (int n = 0; n < kRestored; ++n) {
    grpc::ClientContext context;
    SetDeadline(context, milliseconds(30'000));
    pb::GetDocumentRequest request;
    request.set_document_id(StrCat("d", n));
    pb::GetDocumentResponse response;
    const grpc::Status status = stub.GetDocument(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.document().text(), TextOf(n));
    count += response.document().title() == title;
    EXPECT_TRUE(response.document().title() == title || response.document().title() == other);
  }
  return count;
}

TEST(ClusterRestoreTest, ARestoreThatIsKilledIsSaidAgain) {
  ClusterProcesses cluster(/*shards=*/2, /*replicas=*/2, /*routers=*/1);
  const auto write_all = [&](const std::string& title) {
    for (int n = 0; n < kRestored; n += 100) {
      EXPECT_EQ(WriteDocuments(*cluster.Retriever(0), n, n + 100, title), absl::OkStatus());
    }
  };
  write_all("as in the snapshot");
  const std::vector<std::string> names = MakeSnapshots(*cluster.Admin(0));
  for (const std::string victim : {"router0", "s0r0", "s0r1"}) {
    const auto admin = cluster.Admin(0);
    admin::v1::Operation operation;
    for (int times = 0; times < kTimesMax; ++times) {
      write_all("changed");
      operation = BeginRestore(*admin, names[0]);
      while (IsUnderWay(operation) && operation.progress() <= kDeleted) {
        operation = OperationOf(*admin, operation.operation_id());
      }
      if (IsUnderWay(operation)) break;
      ASSERT_EQ(operation.state(), admin::v1::OPERATION_STATE_SUCCEEDED) << operation.message();
    }
    ASSERT_TRUE(IsUnderWay(operation)) << operation.message();
    cluster.Kill(victim);
    while (victim != "router0" && IsUnderWay(operation)) {
      operation = OperationOf(*cluster.Admin(0), operation.operation_id());
    }
    cluster.Start(victim);
    cluster.WaitUntilAllInSync();
    const int restored = CountTitles(*cluster.Retriever(0), "as in the snapshot", "changed");
    std::printf("%s killed: %d of %d documents are restored\n", victim.c_str(), restored, kRestored);
    EXPECT_GT(restored, 0);
    EXPECT_LT(restored, kRestored) << "the other shard's are not";
  }
  for (const std::string& name : names) {
    admin::v1::Operation operation = BeginRestore(*cluster.Admin(0), name);
    while (IsUnderWay(operation)) operation = OperationOf(*cluster.Admin(0), operation.operation_id());
    EXPECT_EQ(operation.state(), admin::v1::OPERATION_STATE_SUCCEEDED) << operation.message();
  }
  EXPECT_EQ(CountTitles(*cluster.Retriever(0), "as in the snapshot", ""), kRestored);
  cluster.ExpectReplicasAlike();
}

}  // namespace
}  // namespace retro
