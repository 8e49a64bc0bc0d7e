#include "trainer/processes/nccl_group.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string_view>
#include <utility>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/device.h"
#include "common/torch/torch_status.h"
#include "trainer/processes/rendezvous.h"

namespace retro {
namespace {

constexpr char kLibrary[] = "libnccl.so.2";

// NCCL 2's binary interface, as far as it is called here. Its header comes with CUDA's toolkit alone, and the programs
// are to be built without.
struct UniqueId {
  char bytes[128];
};
using Communicator = struct ncclComm*;
constexpr int kSuccess = 0;
constexpr int kInProgress = 7;
constexpr int kInt64 = 4;
constexpr int kFloat32 = 7;
constexpr int kFloat64 = 8;
constexpr int kSum = 0;

struct NcclCalls {
  int (*get_unique_id)(UniqueId* id) = nullptr;
  int (*comm_init_rank)(Communicator* communicator, int size, UniqueId id, int rank) = nullptr;
  int (*comm_destroy)(Communicator communicator) = nullptr;
  int (*comm_get_async_error)(Communicator communicator, int* error) = nullptr;
  int (*all_reduce)(const void* send, void* receive, size_t count, int type, int operation, Communicator communicator,
                    void* stream) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  const char* (*get_error_string)(int error) = nullptr;
};

// The library that torch was linked with is in the process once libtorch_cuda is.
absl::StatusOr<NcclCalls> LoadNccl() {
  void* library = dlopen(kLibrary, RTLD_NOW);
  NcclCalls calls;
  bool whole = library != nullptr;
  const auto find = [&](auto& call, const char* name) {
    call = whole ? reinterpret_cast<std::decay_t<decltype(call)>>(dlsym(library, name)) : nullptr;
    whole = call != nullptr;
  };
  find(calls.get_unique_id, "ncclGetUniqueId");
  find(calls.comm_init_rank, "ncclCommInitRank");
  find(calls.comm_destroy, "ncclCommDestroy");
  find(calls.comm_get_async_error, "ncclCommGetAsyncError");
  find(calls.all_reduce, "ncclAllReduce");
  find(calls.group_start, "ncclGroupStart");
  find(calls.group_end, "ncclGroupEnd");
  find(calls.get_error_string, "ncclGetErrorString");
  if (whole) return calls;
  return absl::FailedPreconditionError(StrCat("NCCL is not usable here (", std::string_view(dlerror()),
                                              "); install torch with the nvidia wheels that it names"));
}

int NcclType(at::ScalarType type) {
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kLong, "no sums over processes of ", type);
  return type == at::kFloat ? kFloat32 : type == at::kDouble ? kFloat64 : kInt64;
}

class NcclGroup : public ProcessGroup {
 public:
  NcclGroup(const Launch& launch, at::Device device, const NcclCalls& calls)
      : ProcessGroup(launch.rank, launch.size), device_(device), nccl_(calls) {}

  ~NcclGroup() override {
    if (std::uncaught_exceptions() > 0 || communicator_ == nullptr) return;
    nccl_.comm_destroy(communicator_);
    rendezvous_->Finish();
  }

  absl::Status Open(const Launch& launch) {
    UniqueId id = {};
    if (launch.rank == 0) RETRO_RETURN_IF_ERROR(Status(nccl_.get_unique_id(&id)));
    const std::string text(id.bytes, sizeof id.bytes);
    RETRO_ASSIGN_OR_RETURN(rendezvous_, Rendezvous::Meet(launch, {}, text, [this](const std::string& r) { End(r); }));
    rendezvous_->text_of_first().copy(id.bytes, sizeof id.bytes);
    const c10::DeviceGuard guard(device_);
    return Status(nccl_.comm_init_rank(&communicator_, size(), id, rank()));
  }

  void Sum(const std::vector<at::Tensor>& tensors) override {
    const c10::DeviceGuard guard(device_);
    // Trainer code never leaves CUDA's default stream, whose handle is null, so the sums are in order with what
    // computes the tensors and what reads them.
    TORCH_CHECK(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device_).id() == 0, "not on the default stream");
    int failure = kSuccess;
    Check(nccl_.comm_get_async_error(communicator_, &failure));
    Check(failure);
    Check(nccl_.group_start());
    for (const at::Tensor& tensor : tensors) {
      TORCH_CHECK(tensor.device() == device_ && tensor.is_contiguous(), "a tensor to be summed is not a plain array");
      void* values = tensor.mutable_data_ptr();
      Check(nccl_.all_reduce(values, values, static_cast<size_t>(tensor.numel()), NcclType(tensor.scalar_type()), kSum,
                             communicator_, /*stream=*/nullptr));
    }
    Check(nccl_.group_end());
  }

  [[noreturn]] void Abort(const std::string& reason) override {
    rendezvous_->Fail(Said(reason));
    End(reason);
  }

 private:
  at::Device device() const override { return device_; }

  absl::Status Status(int result) const {
    if (result == kSuccess || result == kInProgress) return absl::OkStatus();
    return absl::InternalError(StrCat("NCCL: ", nccl_.get_error_string(result)));
  }
  void Check(int result) const { TORCH_CHECK(Status(result).ok(), "NCCL: ", nccl_.get_error_string(result)); }

  // At once: the main thread may be waiting for a GPU that waits for a process that is gone.
  [[noreturn]] void End(const std::string& reason) const {
    std::cerr << Said(reason) + "\n" << std::flush;
    std::_Exit(1);
  }

  const at::Device device_;
  const NcclCalls nccl_;
  Communicator communicator_ = nullptr;
  std::unique_ptr<Rendezvous> rendezvous_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> OpenNcclGroup(const Launch& launch, const std::string& device) {
  RETRO_ASSIGN_OR_RETURN(const at::Device opened, OpenDevice(device));
  RETRO_ASSIGN_OR_RETURN(const NcclCalls calls, LoadNccl());
  auto group = std::make_unique<NcclGroup>(launch, opened, calls);
  RETRO_RETURN_IF_ERROR(CatchTorch([&] { return group->Open(launch); }));
  return group;
}

}  // namespace retro
