// retro.admin.v1.AdminService over an Admin.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>

#include "common/rpc/unary.h"
#include "retriever_service/shard/admin.h"

namespace retro {

// Both must outlive the service.
std::unique_ptr<grpc::Service> MakeAdminService(Admin& admin, UnaryRunner& runner);

}  // namespace retro
