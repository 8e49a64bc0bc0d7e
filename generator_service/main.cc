// retro-generator: settings, wiring, start and stop; nothing else.
#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "common/base/openmp.h"
#include "common/base/status_macros.h"
#include "common/rpc/metrics.h"
#include "common/rpc/service_main.h"
#include "common/rpc/settings.h"
#include "generator_service/serve/generator_service.h"
#include "generator_service/serve/retriever_client.h"
#include "generator_service/serve/served_model.h"

namespace retro {
namespace {

constexpr char kAutomatic[] = "auto";
constexpr uint64_t kRequestBytesMaxMin = uint64_t{20} << 20;  // the largest message
constexpr uint64_t kBytesMax = uint64_t{1} << 40;

std::vector<std::string> DtypeNames() {
  std::vector<std::string> names = ModelNumbersNames();
  names.emplace_back(kAutomatic);
  return names;
}

struct Settings {
  ServiceSettings service{.server = {.listen = "127.0.0.1:7800"}};
  std::string model;
  std::string device = "cpu";
  std::string dtype = kAutomatic;
  int64_t cache_mib = 1024;
  GeneratorOptions generator;
};

void AddSettings(CLI::App& app, Settings& settings) {
  AddServiceSettings(app, settings.service);
  app.add_option("--model", settings.model, "Folder of the model (config.json, model.safetensors, tokenizer)")
      ->required();
  app.add_option("--retriever", settings.generator.retriever,
                 "Address of the retriever: host:port, or dns:///name:port for all addresses of a name")
      ->capture_default_str();
  AddClientSettings(app, "retriever", settings.generator.retriever_security);
  app.add_option("--device", settings.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option(
         "--dtype", settings.dtype,
         "Numbers to compute with: fp16 or int8 weights (CPU), bf16 (CUDA), fp32 (the reference; results of models "
         "with the paper's positions are equal to the bit in any batch); auto: fp16 on the CPU, bf16 on CUDA")
      ->check(CLI::IsMember(DtypeNames()))
      ->capture_default_str();
  app.add_option("--threads", settings.generator.threads, "Threads that compute; 0: one a core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option(
         "--cuda-graphs", settings.generator.cuda_graphs,
         "On CUDA, capture the decoding of tokens, and sample them on the device; false: launch each kernel and "
         "sample on the host. What reads prompts, slides, reads more than 4 neighbours of a chunk, or tells "
         "log-probabilities of other tokens or attention is never captured, nor are generations past the 64th and "
         "models of other programs")
      ->capture_default_str();
  constexpr char kBounds[] = "Bounds";
  SchedulerLimits& limits = settings.generator.limits;
  const auto add_bound = [&app, kBounds](const char* flag, int64_t& value, const char* help, int64_t least) {
    app.add_option(flag, value, help)
        ->check(CLI::Range(least, int64_t{1} << 32))
        ->capture_default_str()
        ->group(kBounds);
  };
  add_bound("--sessions-max", limits.sessions_max, "Generations that run at once", 1);
  add_bound("--waiting-max", limits.waiting_max, "Generations that may wait for a place; more are refused at once", 0);
  add_bound("--cache-mib", settings.cache_mib,
            "Memory for the keys and values of all running generations, taken at start; one that does not fit, with "
            "the neighbours that it reads, waits",
            1);
  add_bound("--prefill-tokens-max", limits.prefill_tokens_max, "Tokens of prompts a step, while nobody generates", 1);
  add_bound("--prefill-tokens-shared-max", limits.prefill_tokens_shared_max,
            "Tokens of prompts a step, while somebody does; on CUDA 128 or more, within --prefill-tokens-max", 1);
  app.add_option("--neighbours-max", settings.generator.neighbours_max,
                 "Neighbours a chunk that a request may ask for or give: each is some 128 tokens of the encoder's work")
      ->check(CLI::Range(int64_t{1}, kNeighboursMax))
      ->capture_default_str()
      ->group(kBounds);
  add_bound("--encoder-neighbours-max", limits.encoder_rows_max,
            "Neighbours encoded in a step; those of a chunk that has more are encoded in a step of their own", 1);
  app.add_option("--request-bytes-max", settings.generator.request_bytes_max,
                 "Bytes in memory of requests, while their generations last, of what was found for them, until it "
                 "is read, and of replies; more are refused at once")
      ->check(CLI::Range(kRequestBytesMaxMin, kBytesMax))
      ->capture_default_str()
      ->group(kBounds);
  app.add_option("--stall-ms-max", limits.stall_ms_max,
                 "A call that nobody reads for so long is ended; after a tenth of it if others wait for its place")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 32))
      ->default_str(std::to_string(limits.stall_ms_max.count()))
      ->group(kBounds);
}

absl::StatusOr<ModelOptions> ModelOptionsOf(const Settings& settings) {
  ModelOptions options{.numbers = ServingNumbers(settings.device), .cache_bytes = settings.cache_mib << 20};
  if (settings.dtype != kAutomatic) {
    RETRO_ASSIGN_OR_RETURN(options.numbers, ModelNumbersFromName(settings.dtype));
  }
  return options;
}

ClientSecurity RetrieverSecurity(const Settings& settings) {
  ClientSecurity security = settings.generator.retriever_security;
  security.allow_plaintext_key_beyond_loopback = settings.service.server.allow_plaintext_beyond_loopback;
  return security;
}

absl::Status Check(const Settings& settings) {
  RETRO_RETURN_IF_ERROR(MakeRetrieverChannel(settings.generator.retriever, RetrieverSecurity(settings)).status());
  RETRO_ASSIGN_OR_RETURN(const ModelOptions options, ModelOptionsOf(settings));
  return CheckServedModel(settings.model, settings.device, options);
}

absl::Status Serve(Settings& settings) {
  RETRO_ASSIGN_OR_RETURN(const ModelOptions options, ModelOptionsOf(settings));
  RETRO_ASSIGN_OR_RETURN(ServedModel model, LoadServedModel(settings.model, settings.device, options));
  Metrics metrics;
  settings.generator.server = settings.service.server;
  settings.generator.retriever_security = RetrieverSecurity(settings);
  RETRO_ASSIGN_OR_RETURN(const std::unique_ptr<Generator> generator,
                         Generator::Start(settings.generator, std::move(model), metrics));
  return ServeUntilStopped(settings.service, metrics, generator->port(), [&generator] { generator->Stop(); });
}

int Main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Continues texts with a RETRO model, with neighbours fetched for every chunk.", "retro-generator");
  AddSettings(app, settings);
  return RunService(
      app, "RETRO_GENERATOR_", settings.service, argc, argv, [&settings] { return Check(settings); },
      [&settings] { return Serve(settings); });
}

}  // namespace
}  // namespace retro

int main(int argc, char** argv) {
  retro::EnsurePassiveOpenMp(argv);
  return retro::Main(argc, argv);
}
