#include "common/rpc/health.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/base/strings.h"
#include "common/rpc/server.h"

namespace retro {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using Stub = grpc::health::v1::Health::Stub;
using State = HealthCheckResponse::ServingStatus;

HealthCheckRequest Of(const std::string& name) {
  HealthCheckRequest request;
  request.set_service(name);
  return request;
}

// A server with both ports, whose drain outlasts a test.
class HealthTest : public testing::Test {
 protected:
  HealthTest() {
    ServerOptions options;
    options.health_listen = "127.0.0.1:0";
    options.drain_max = std::chrono::hours(1);
    auto server = RpcServer::Start(options, {});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    for (const int port : {server_->port(), server_->health_port()}) {
      stubs_.push_back(grpc::health::v1::Health::NewStub(
          grpc::CreateChannel(StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials())));
    }
  }

  static grpc::StatusCode Check(Stub& stub, const std::string& name, State* state) {
    grpc::ClientContext context;
    HealthCheckResponse response;
    const grpc::Status status = stub.Check(&context, Of(name), &response);
    *state = response.status();
    return status.error_code();
  }

  std::unique_ptr<RpcServer> server_;
  std::vector<std::unique_ptr<Stub>> stubs_;
};

TEST_F(HealthTest, BothPortsSayTheSame) {
  for (const bool serving : {true, false}) {
    server_->SetServing("name", serving);
    for (const auto& stub : stubs_) {
      State state;
      EXPECT_EQ(Check(*stub, "", &state), grpc::StatusCode::OK);
      EXPECT_EQ(state, HealthCheckResponse::SERVING);
      EXPECT_EQ(Check(*stub, "name", &state), grpc::StatusCode::OK);
      EXPECT_EQ(state, serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
      EXPECT_EQ(Check(*stub, "another", &state), grpc::StatusCode::NOT_FOUND);
      EXPECT_EQ(Check(*stub, std::string(1000, 'x'), &state), grpc::StatusCode::INVALID_ARGUMENT);
    }
  }
}

TEST_F(HealthTest, WhoWatchesIsToldOfEachChange) {
  grpc::ClientContext context;
  const auto watch = stubs_[0]->Watch(&context, Of("name"));
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  for (const bool serving : {true, false, true}) {
    server_->SetServing("name", serving);
    server_->SetServing("name", serving);  // nothing new
    server_->SetServing("another", !serving);
    ASSERT_TRUE(watch->Read(&response));
    EXPECT_EQ(response.status(), serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
  }
  context.TryCancel();
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
  grpc::ClientContext other;
  const auto refused = stubs_[0]->Watch(&other, Of(std::string(1000, 'x')));
  EXPECT_FALSE(refused->Read(&response));
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(HealthTest, WhoWatchesDoesNotHoldUpTheEnd) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<HealthCheckResponse>>> watches;
  for (const auto& stub : stubs_) {
    for (const char* name : {"", "name"}) {
      watches.push_back(stub->Watch(contexts.emplace_back(std::make_unique<grpc::ClientContext>()).get(), Of(name)));
      HealthCheckResponse response;
      ASSERT_TRUE(watches.back()->Read(&response));
    }
  }
  server_->Stop();  // or it lasts an hour
  HealthCheckResponse response;
  ASSERT_TRUE(watches[0]->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  for (const auto& watch : watches) {
    while (watch->Read(&response)) EXPECT_NE(response.status(), HealthCheckResponse::SERVING);
    EXPECT_FALSE(watch->Finish().ok());
  }
}

}  // namespace
}  // namespace retro
