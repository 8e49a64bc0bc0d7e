#include "trainer/training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "common/base/hash.h"
#include "common/base/heap.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/torch/device.h"
#include "common/torch/torch_status.h"
#include "generator_service/checkpoints/checkpoint.h"
#include "generator_service/model/attention.h"
#include "generator_service/model/weights.h"
#include "trainer/batch_forward.h"
#include "trainer/curve.h"
#include "trainer/data_set_writer.h"
#include "trainer/model_text.h"
#include "trainer/retrofit.h"
#include "trainer/train_checkpoint.h"

namespace retro {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kModelFolder[] = "model";

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The batches of a step that one process computes, and the labels of the whole step.
struct StepBatches {
  std::vector<Batch> own;
  int64_t labels = 0;
};

class Training {
 public:
  Training(const TrainingOptions& options, const Report& report) : options_(options), report_(report) {}

  absl::Status Run() {
    RETRO_RETURN_IF_ERROR(Open());
    RETRO_RETURN_IF_ERROR(Resume());
    if (options_.group != nullptr) RETRO_RETURN_IF_ERROR(CatchTorch([&] { return CheckSameStart(); }));
    if (Writes()) report_(StrCat("at step ", step_, " of ", options_.optimiser.steps));
    begin_ = interval_begin_ = Clock::now();
    first_step_ = step_;
    bool stopped = false;
    while (step_ < options_.optimiser.steps && !stopped) {
      RETRO_RETURN_IF_ERROR(CatchTorch([&] { return Step(); }));
      ++step_;
      RETRO_RETURN_IF_ERROR(CatchTorch([&] {
        stopped = IsTimeUp();
        return absl::OkStatus();
      }));
      const bool last = stopped || step_ == options_.optimiser.steps;
      const bool save = last || step_ % options_.checkpoint_steps == 0;
      const bool validate = text_[1].data && (last || step_ % options_.validation_steps == 0);
      if (save || validate || step_ % options_.log_steps == 0) RETRO_RETURN_IF_ERROR(Log(validate));
      if (save) RETRO_RETURN_IF_ERROR(Save());
    }
    return Save();
  }

 private:
  bool Writes() const { return options_.group == nullptr || options_.group->rank() == 0; }
  int64_t Rank() const { return options_.group == nullptr ? 0 : options_.group->rank(); }
  int64_t Processes() const { return options_.group == nullptr ? 1 : options_.group->size(); }

  absl::Status Open() {
    if (options_.accumulation % Processes() != 0) {
      return absl::InvalidArgumentError(StrCat("the passes of a step (", options_.accumulation,
                                               ") do not go evenly into ", Processes(), " processes"));
    }
    RETRO_ASSIGN_OR_RETURN(device_, OpenDevice(options_.device));
    RETRO_ASSIGN_OR_RETURN(info_, ReadCheckpointInfo(options_.model));
    RETRO_RETURN_IF_ERROR(CheckTrainable(info_.config));
    RETRO_ASSIGN_OR_RETURN(const WeightMap start, ReadCheckpointWeights(options_.model, info_));
    RETRO_RETURN_IF_ERROR(CheckWindowLength(info_.config, options_.batch.length));
    RETRO_RETURN_IF_ERROR(OpenModelText(options_.data, info_, text_[0]));
    if (!options_.validation.empty()) RETRO_RETURN_IF_ERROR(OpenModelText(options_.validation, info_, text_[1]));
    data_ = text_[0].data->header().fingerprint;
    if (const NeighbourTable* table = text_[0].table(); table != nullptr) {
      const NeighbourHeader& header = table->header();
      info_.embedder_fingerprint = header.embedder_fingerprint;
      info_.trained_neighbours = std::min<int64_t>(options_.batch.k, static_cast<int64_t>(header.k));
      for (const DatabaseRef& ref : header.databases) data_ += " " + ref.fingerprint;
      data_ += StrCat(" ", info_.embedder_fingerprint, " ", table->Digest());
    }
    batches_.emplace(*text_[0].data, text_[0].table(), info_.config, options_.batch);
    if (batches_->windows_per_epoch() == 0) {
      return absl::InvalidArgumentError(StrCat(options_.data, " holds less than one window of text"));
    }
    RETRO_RETURN_IF_ERROR(MakeFolder(options_.out));
    return CatchTorch([&] {
      for (const auto& [name, tensor] : start) {
        weights_.emplace(name, tensor.to(device_, at::kFloat, /*non_blocking=*/false, /*copy=*/true)
                                   .requires_grad_(options_.trained == Trained::kAll || ServesRetrieval(name)));
      }
      optimiser_.emplace(info_.config, weights_, options_.optimiser);
      return absl::OkStatus();
    });
  }

  // Everything that the losses depend on.
  RunIdentity Identity() const {
    const BatchOptions& b = options_.batch;
    const OptimiserOptions& o = options_.optimiser;
    return {
        ModelConfigToJson(info_.config), data_,
        StrCat("start=", info_.revision, " windows=", b.windows, " length=", b.length, " k=", b.k, " seed=", b.seed,
               " offset=", b.offset_share, " without=", b.no_retrieval_share, " accumulation=", options_.accumulation,
               " rate=", o.learning_rate, " final=", o.final_share, " warmup=", o.warmup_steps, " steps=", o.steps,
               " decay=", o.weight_decay, " beta1=", o.beta1, " beta2=", o.beta2, " epsilon=", o.epsilon,
               " clip=", o.clip_norm, options_.trained == Trained::kRetrieval ? " trained=retrieval" : "",
               options_.numbers == TrainNumbers::kBf16 ? " numbers=bf16" : "")};
  }

  absl::Status Resume() {
    const absl::StatusOr<int64_t> done = ReadTrainCheckpoint(options_.out, Identity(), weights_, *optimiser_);
    if (!absl::IsNotFound(done.status())) {
      RETRO_RETURN_IF_ERROR(done.status());
      step_ = *done;
    }
    if (!Writes()) return absl::OkStatus();
    RETRO_RETURN_IF_ERROR(curve_.Open(options_.out, step_));
    tokens_ = curve_.tokens();
    return absl::OkStatus();
  }

  // Processes that began differently would train another model than any of them says.
  absl::Status CheckSameStart() {
    const RunIdentity identity = Identity();
    const std::string digest = Sha256Bytes(identity.config + identity.data + identity.options);
    int64_t begin = 0;
    std::memcpy(&begin, digest.data(), sizeof begin);
    RETRO_RETURN_IF_ERROR(CheckSame(begin, "model, data or options"));
    return CheckSame(step_, "step to go on from (all must see the same --out)");
  }

  absl::Status CheckSame(int64_t value, std::string_view what) {
    const std::vector<int64_t> values = options_.group->Gather(value);
    for (size_t rank = 1; rank < values.size(); ++rank) {
      if (values[rank] == values[0]) continue;
      return absl::FailedPreconditionError(StrCat("rank ", rank, " has another ", what, " than rank 0"));
    }
    return absl::OkStatus();
  }

  // Where a row of the curve is due, so that it stays the uninterrupted run's; in a group the clock of rank 0 decides.
  bool IsTimeUp() {
    if (options_.seconds_max <= 0 || step_ % options_.log_steps != 0) return false;
    const bool up = SecondsSince(begin_) >= options_.seconds_max;
    return options_.group == nullptr ? up : options_.group->Gather(up ? 1 : 0)[0] == 1;
  }

  // The weights in the numbers of the computation, bound anew: the way back goes through both to the fp32 weights.
  // Matrices and embeddings alone are rounded, so that the residual stream stays fp32; not W_R, of which the position
  // tables are made.
  absl::StatusOr<ModelWeights> Bind() {
    if (options_.numbers == TrainNumbers::kFp32) return BindWeights(info_.config, weights_, &sinusoids_);
    WeightMap cast;
    for (const auto& [name, weight] : weights_) {
      const bool rounded = weight.dim() == 2 && !name.ends_with(".position");
      cast.emplace(name, rounded ? weight.to(at::kBFloat16) : weight);
    }
    return BindWeights(info_.config, cast, &sinusoids_);
  }

  // The batches of a step on the host, made while the device computes the step before.
  StepBatches MakeBatches(int64_t step) {
    StepBatches batches;
    for (int64_t a = 0; a < options_.accumulation; ++a) {
      const auto number = static_cast<uint64_t>(step * options_.accumulation + a);
      if (a % Processes() == Rank()) {
        batches.own.push_back(batches_->Make(number));
        batches.labels += batches.own.back().label_count;
      } else {
        batches.labels += batches_->CountLabels(number);
      }
    }
    return batches;
  }

  absl::Status Step() {
    const StepBatches batches = next_.valid() ? next_.get() : MakeBatches(step_);
    if (step_ + 1 < options_.optimiser.steps) {
      next_ = std::async(std::launch::async, [this, step = step_ + 1] { return MakeBatches(step); });
    }
    at::Tensor loss;
    for (const Batch& batch : batches.own) {
      const Batch placed = batch.To(device_);
      RETRO_ASSIGN_OR_RETURN(const ModelWeights bound, Bind());
      const at::Tensor logits = BatchForward(bound, info_.config, placed, {.recompute = options_.recompute});
      const at::Tensor part = SummedLoss(logits, placed) / static_cast<double>(std::max<int64_t>(batches.labels, 1));
      GiveFreedMemoryBack();  // what lies free between all that is kept for the way back: a fifth of what is resident
      // Nothing learns from windows without neighbours where only retrieval does.
      if (part.requires_grad()) part.backward();
      loss = loss.defined() ? loss + part.detach() : part.detach();
    }
    if (options_.group != nullptr) SumOverProcesses(loss);
    losses_.push_back(loss);
    norms_.push_back(optimiser_->Step(step_));
    tokens_ += batches.labels;
    interval_tokens_ += batches.labels;
    return absl::OkStatus();
  }

  // Loss and gradients become those of the whole step.
  void SumOverProcesses(const at::Tensor& loss) {
    std::vector<at::Tensor> all = {loss};
    for (const auto& [name, weight] : weights_) {
      if (!weight.requires_grad()) continue;
      at::Tensor& gradient = weight.mutable_grad();
      // The windows of another process may reach weights that those of this one do not.
      gradient = gradient.defined() ? gradient.contiguous() : at::zeros_like(weight, at::MemoryFormat::Contiguous);
      all.push_back(gradient);
    }
    options_.group->Sum(all);
  }

  // Waits for the device, checks the losses since the last time, and writes a row of the curve.
  absl::Status Log(bool validate) {
    const at::Tensor losses = at::stack(losses_).to(at::kCPU, at::kDouble);
    const at::Tensor norms = at::stack(norms_).to(at::kCPU, at::kDouble);
    const auto count = static_cast<int64_t>(losses_.size());
    for (int64_t i = 0; i < count; ++i) {
      const double loss = losses[i].item<double>();
      if (std::isfinite(loss) && std::isfinite(norms[i].item<double>())) continue;
      const int64_t step = step_ - count + i;
      const int64_t windows = options_.batch.windows * options_.accumulation;
      return absl::AbortedError(StrCat(
          "loss ", loss, ", gradient norm ", norms[i].item<double>(), " at step ", step + 1, " (windows ",
          step * windows, " to ", (step + 1) * windows - 1, "): stopped; the last good checkpoint stays in ",
          options_.out, ", go on from it with a lower --learning-rate as --model ", options_.out, "/", kModelFolder));
    }
    const double seconds = SecondsSince(interval_begin_);
    CurvePoint point = {.step = step_,
                        .tokens = tokens_,
                        .loss = losses.mean().item<double>(),
                        .gradient_norm = norms.mean().item<double>(),
                        .learning_rate = LearningRate(options_.optimiser, step_ - 1),
                        .tokens_per_second = static_cast<double>(interval_tokens_) / std::max(seconds, 1e-9)};
    losses_.clear();
    norms_.clear();
    interval_tokens_ = 0;
    if (validate) {
      RETRO_ASSIGN_OR_RETURN(point.validation_loss_without_neighbours, Validate(nullptr));
      if (text_[1].table() != nullptr) {
        RETRO_ASSIGN_OR_RETURN(point.validation_loss, Validate(text_[1].table()));
      }
    }
    interval_begin_ = Clock::now();
    return Writes() ? Write(point) : absl::OkStatus();
  }

  absl::Status Write(const CurvePoint& point) {
    const double left = SecondsSince(begin_) / static_cast<double>(step_ - first_step_) *
                        static_cast<double>(options_.optimiser.steps - step_);
    std::string line = fmt::format("step {} of {}: loss {:.4f}, {:.0f} tokens/s, {:.0f} s left", step_,
                                   options_.optimiser.steps, point.loss, point.tokens_per_second, left);
    if (point.validation_loss_without_neighbours)
      line += fmt::format(", validation {:.4f} without neighbours", *point.validation_loss_without_neighbours);
    if (point.validation_loss) line += fmt::format(", {:.4f} with", *point.validation_loss);
    report_(line);
    return curve_.Add(point);
  }

  // Mean loss over the first windows of the validation text.
  absl::StatusOr<double> Validate(const NeighbourTable* neighbours) {
    BatchOptions batch = options_.batch;
    batch.offset_share = batch.no_retrieval_share = 0;
    batch.shuffle = false;
    BatchMaker maker(*text_[1].data, neighbours, info_.config, batch);
    const auto whole = static_cast<int64_t>(maker.windows_per_epoch()) / batch.windows;
    if (whole == 0) {
      return absl::InvalidArgumentError(StrCat(options_.validation, " holds less than a batch of windows"));
    }
    return CatchTorch([&]() -> absl::StatusOr<double> {
      const at::NoGradGuard no_grad;
      RETRO_ASSIGN_OR_RETURN(const ModelWeights bound, Bind());
      at::Tensor sum = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device_));
      int64_t labels = 0;
      for (int64_t i = Rank(); i < std::min(whole, options_.validation_batches); i += Processes()) {
        const Batch placed = maker.Make(static_cast<uint64_t>(i)).To(device_);
        sum = sum + SummedLoss(BatchForward(bound, info_.config, placed), placed);
        labels += placed.label_count;
      }
      if (options_.group != nullptr) {
        const at::Tensor counted = at::full({}, labels, sum.options().dtype(at::kLong));
        options_.group->Sum({sum, counted});
        labels = counted.item<int64_t>();
      }
      return sum.item<double>() / static_cast<double>(labels);
    });
  }

  absl::Status Save() {
    if (saved_step_ == step_) return absl::OkStatus();
    saved_step_ = step_;
    if (options_.group != nullptr) RETRO_RETURN_IF_ERROR(CatchTorch([&] { return CheckSameWeights(); }));
    return Writes() ? WriteModel() : absl::OkStatus();
  }

  // What is saved stands for all processes; a machine that computes wrongly shows here.
  absl::Status CheckSameWeights() {
    const at::NoGradGuard no_grad;
    at::Tensor bits = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device_));
    for (const auto& [name, weight] : weights_) bits = bits + weight.view(at::kInt).sum(at::kLong);
    return CheckSame(bits.item<int64_t>(), StrCat("model after step ", step_));
  }

  absl::Status WriteModel() {
    const RunIdentity identity = Identity();
    RETRO_RETURN_IF_ERROR(WriteTrainCheckpoint(options_.out, identity, weights_, *optimiser_, step_));
    const std::string tokenizer =
        info_.tokenizer_file.empty() ? "" : ModelFilePath(options_.model, info_.tokenizer_file);
    const auto saved = SaveCheckpoint(options_.out + "/" + kModelFolder, info_, weights_, tokenizer);
    return saved.status();
  }

  const TrainingOptions& options_;
  const Report& report_;
  at::Device device_ = at::kCPU;
  CheckpointInfo info_;
  std::string data_;   // fingerprints of text and neighbours
  ModelText text_[2];  // to train on, to validate on
  WeightMap weights_;
  SinusoidCache sinusoids_;
  std::optional<Optimiser> optimiser_;
  std::optional<BatchMaker> batches_;
  std::future<StepBatches> next_;
  Curve curve_;
  int64_t step_ = 0;  // done
  int64_t first_step_ = 0;
  int64_t saved_step_ = -1;
  int64_t tokens_ = 0;
  std::vector<at::Tensor> losses_, norms_;  // since the last log, on the device
  int64_t interval_tokens_ = 0;
  Clock::time_point begin_, interval_begin_;
};

}  // namespace

absl::Status Train(const TrainingOptions& options, const Report& report) {
  const absl::Status status = Training(options, report).Run();
  if (!status.ok() && options.group != nullptr) options.group->Abort(std::string(MessageOf(status)));
  return status;
}

}  // namespace retro
