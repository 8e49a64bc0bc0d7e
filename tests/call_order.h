// For ThreadSanitizer alone, which does not see that gRPC orders the two sides of a call: between the handlers of
// servers and a thread of the test that waits for its calls to end.
#pragma once

#include <grpcpp/server_builder.h>
#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/handover.h"

namespace retro {

inline char g_calls;  // what is handed over

// What the test did before its calls comes before the handlers, and what these did comes before all after its calls.
inline void BeforeCalls() { HandOver(&g_calls); }
inline void AfterCalls() { TakeOver(&g_calls); }

class OrderedHandlers final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  static void Watch(grpc::ServerBuilder& builder) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(std::make_unique<OrderedHandlers>());
    builder.experimental().SetInterceptorCreators(std::move(creators));
  }

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    const bool is_ours =
        std::string_view(info->method()).starts_with("/retro.");  // what gRPC serves itself is not seen
    return is_ours ? new Handler : nullptr;
  }

 private:
  class Handler final : public grpc::experimental::Interceptor {
    void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
      using Point = grpc::experimental::InterceptionHookPoints;
      if (methods->QueryInterceptionHookPoint(Point::POST_RECV_INITIAL_METADATA)) TakeOver(&g_calls);
      if (methods->QueryInterceptionHookPoint(Point::PRE_SEND_STATUS)) HandOver(&g_calls);
      methods->Proceed();
    }
  };
};

}  // namespace retro
