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

class AdminService final : public ServiceBase {
 public:
  AdminService(Admin& admin, UnaryRunner& runner) : admin_(admin), runner_(runner) {}

#define RETRO_ADMIN_RPC(Method)                                                                                       \
  ServerUnaryReactor* Method(CallbackServerContext* context, const ByteBuffer* request, ByteBuffer* reply) override { \
    return runner_.Run<adminpb::Method##Request, adminpb::Method##Response>(                                          \
        context, "admin." #Method, request, reply,                                                                    \
        [this](const adminpb::Method##Request& message, const CallContext& call) {                                    \
          return admin_.Method(message, call);                                                                        \
        });                                                                                                           \
  }
  RETRO_ADMIN_RPC(CreateSnapshot)
  RETRO_ADMIN_RPC(ListSnapshots)
  RETRO_ADMIN_RPC(DeleteSnapshot)
  RETRO_ADMIN_RPC(RestoreSnapshot)
  RETRO_ADMIN_RPC(Verify)
  RETRO_ADMIN_RPC(Compact)
  RETRO_ADMIN_RPC(SetReadOnly)
  RETRO_ADMIN_RPC(TrainIndex)
  RETRO_ADMIN_RPC(ListReplicas)
  RETRO_ADMIN_RPC(Promote)
  RETRO_ADMIN_RPC(GetOperation)
#undef RETRO_ADMIN_RPC

 private:
  Admin& admin_;
  UnaryRunner& runner_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(Admin& admin, UnaryRunner& runner) {
  return std::make_unique<AdminService>(admin, runner);
}

}  // namespace retro
