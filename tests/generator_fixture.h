// A generator of the tiny model beside a fake retriever, and a caller of it.
#pragma once

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/rpc/status.h"
#include "generator_service/serve/generator_service.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "retro/generator/v1/generator.grpc.pb.h"
#include "tests/fake_retriever.h"
#include "tests/tiny_served_model.h"

namespace retro {

// A finished (or failed) stream.
struct Stream {
  std::vector<generator::v1::TokenEvent> tokens;
  std::vector<generator::v1::RetrievalEvent> retrievals;
  generator::v1::FinishEvent finish;
  absl::Status status;

  std::vector<TokenId> Ids() const {
    std::vector<TokenId> ids;
    ids.reserve(tokens.size());
    for (const auto& token : tokens) ids.push_back(token.id());
    return ids;
  }
  std::string Text() const {
    std::string text;
    for (const auto& token : tokens) text += token.text();
    return text + finish.text();
  }
};

class GeneratorServiceTest : public testing::Test {
 protected:
  GeneratorServiceTest() : retriever_(std::string(32, 'b')) {}

  void Serve(const std::string& retriever, SchedulerLimits limits = {},
             std::chrono::milliseconds drain_max = std::chrono::milliseconds(3000), GeneratorOptions options = {},
             ServedModel model = TinyServedModel()) {
    options.retriever = retriever;
    options.limits = limits;
    options.server.drain_max = drain_max;
    options.probe_ms = std::chrono::milliseconds(100);
    auto generator = Generator::Start(options, std::move(model), metrics_);
    ASSERT_TRUE(generator.ok()) << generator.status();
    generator_ = *std::move(generator);
    channel_ =
        grpc::CreateChannel("127.0.0.1:" + std::to_string(generator_->port()), grpc::InsecureChannelCredentials());
    stub_ = generator::v1::GeneratorService::NewStub(channel_);
  }
  void Serve() { Serve(retriever_.address()); }
  void Serve(ServedModel model) {
    Serve(retriever_.address(), {}, std::chrono::milliseconds(3000), {}, std::move(model));
  }

  static generator::v1::GenerateRequest Request(const std::string& prompt, uint32_t max_tokens) {
    generator::v1::GenerateRequest request;
    request.set_text(prompt);
    request.set_max_tokens(max_tokens);
    request.mutable_sampling()->set_temperature(0.8F);
    request.mutable_sampling()->set_seed(11);
    (*request.mutable_sampling()->mutable_logit_bias())[3] = -100;  // no end of text
    request.mutable_retrieval()->mutable_timeout()->set_seconds(30);
    return request;
  }

  // In sixty thousand bytes, which take ten times as many once they are read.
  static void FillMetadata(retriever::v1::Neighbour& neighbour) {
    for (int key = 0; key < 60; ++key) {
      auto& values = (*neighbour.mutable_metadata())["key" + std::to_string(key)];
      for (int i = 0; i < 256; ++i) values.add_values()->set_int_value(1);
    }
  }

  Stream Generate(const generator::v1::GenerateRequest& request, grpc::ClientContext* given = nullptr) {
    grpc::ClientContext own;
    auto reader = stub_->Generate(given != nullptr ? given : &own, request);
    Stream run;
    generator::v1::GenerateResponse event;
    while (reader->Read(&event)) {
      if (event.has_token()) run.tokens.push_back(event.token());
      if (event.has_retrieval()) run.retrievals.push_back(event.retrieval());
      if (event.has_finish()) run.finish = event.finish();
    }
    run.status = FromGrpcStatus(reader->Finish());
    return run;
  }

  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& name) {
    const auto stub = grpc::health::v1::Health::NewStub(channel_);
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(stub->Check(&context, request, &response).ok());
    return response.status();
  }

  FakeRetriever retriever_;
  Metrics metrics_;
  std::unique_ptr<Generator> generator_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<generator::v1::GeneratorService::Stub> stub_;
};

}  // namespace retro
