#include "retriever_service/shard/admin_service.h"

#include <grpcpp/server_context.h>

#include "retro/admin/v1/admin.grpc.pb.h"

namespace retro {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

using Rpcs = adminpb::AdminService;
using ServiceBase = Rpcs::WithRawCallbackMethod_CreateSnapshot<Rpcs::WithRawCallbackMethod_ListSnapshots<
    Rpcs::WithRawCallbackMethod_DeleteSnapshot<Rpcs::WithRawCallbackMethod_RestoreSnapshot<
        Rpcs::WithRawCallbackMethod_Verify<Rpcs::WithRawCallbackMethod_Compact<Rpcs::WithRawCallbackMethod_SetReadOnly<
            Rpcs::WithRawCallbackMethod_TrainIndex<Rpcs::WithRawCallbackMethod_ListReplicas<
                Rpcs::WithRawCallbackMethod_Promote<Rpcs::WithRawCallbackMethod_GetOperation<Rpcs::Service>>>>>>>>>>>;

constexpr int kUrgentWorkers = 4;  // one of them may wait for a replica that does not answer
constexpr size_t kUrgentWaitingMax = 16;

class AdminService final : public ServiceBase {
 public:
  AdminService(Admin& admin, UnaryRunner& runner)
      : admin_(admin),
        runner_(runner),
        urgent_workers_(kUrgentWorkers, kUrgentWaitingMax),
        urgent_runner_(urgent_workers_, runner) {}

#define RETRO_ADMIN_RPC(Method, runner)                                                                               \
  ServerUnaryReactor* Method(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override { \
    return (runner).Run<adminpb::Method##Request, adminpb::Method##Response>(                                         \
        context, "admin." #Method, request, reply,                                                                    \
        [this](const adminpb::Method##Request& message, const CallContext& call) {                                    \
          return admin_.Method(message, call);                                                                        \
        });                                                                                                           \
  }
  RETRO_ADMIN_RPC(CreateSnapshot, runner_)
  RETRO_ADMIN_RPC(ListSnapshots, runner_)
  RETRO_ADMIN_RPC(DeleteSnapshot, runner_)
  RETRO_ADMIN_RPC(RestoreSnapshot, runner_)
  RETRO_ADMIN_RPC(Verify, runner_)
  RETRO_ADMIN_RPC(Compact, runner_)
  RETRO_ADMIN_RPC(SetReadOnly, urgent_runner_)
  RETRO_ADMIN_RPC(TrainIndex, runner_)
  RETRO_ADMIN_RPC(ListReplicas, runner_)
  RETRO_ADMIN_RPC(Promote, urgent_runner_)
  RETRO_ADMIN_RPC(GetOperation, runner_)
#undef RETRO_ADMIN_RPC

 private:
  Admin& admin_;
  UnaryRunner& runner_;
  WorkerPool urgent_workers_;  // a promotion must not wait for checksums of everything
  UnaryRunner urgent_runner_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(Admin& admin, UnaryRunner& runner) {
  return std::make_unique<AdminService>(admin, runner);
}

}  // namespace retro
