#include "generator_service/serve/retriever_client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/strings.h"
#include "common/rpc/status.h"
#include "generator_service/engine/generation.h"
#include "generator_service/engine/text_assembler.h"

namespace retro {
namespace {

namespace pb = ::retro::retriever::v1;

constexpr int kMessageBytesMax = 64 << 20;
constexpr int kReconnectMsMax = 1000;

std::chrono::system_clock::time_point WallTime(Clock::time_point deadline) {
  const auto left =
      std::clamp<Clock::duration>(deadline - Clock::now(), Clock::duration::zero(), std::chrono::hours(1));
  return std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::milliseconds>(left);
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeRetrieverChannel(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetLoadBalancingPolicyName("round_robin");
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMsMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMsMax / 10);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

// One look-up under way. The two RPCs of it follow each other, so no two threads touch it at once, but for TryCancel.
struct RetrieverClient::Call {
  LookupRequest request;
  Callback done;
  const RetrievalScope* scope = nullptr;
  std::vector<int> query_of_chunk;  // its place among the queries; -1: not asked for

  grpc::ClientContext store_context;
  pb::GetInfoRequest store_request;
  pb::GetInfoResponse store_response;

  grpc::ClientContext search_context;
  pb::SearchRequest search;
  pb::SearchResponse response;

  void Prepare(grpc::ClientContext& context) const {
    context.set_deadline(WallTime(request.deadline));
    context.AddMetadata("x-request-id", request.request_id);
  }
};

RetrieverClient::RetrieverClient(std::shared_ptr<grpc::Channel> channel, std::string target, const ServedModel& model,
                                 NeighbourTokens& tokens, StoreView& store)
    : target_(std::move(target)),
      stub_(pb::RetrieverService::NewStub(std::move(channel))),
      model_(model),
      tokens_(tokens),
      store_(store) {}

RetrieverClient::~RetrieverClient() {
  MutexLock lock(mutex_);
  for (const auto& [lookup, call] : calls_) {
    call->store_context.TryCancel();
    call->search_context.TryCancel();
  }
  while (!calls_.empty()) idle_.Wait(mutex_);
}

void RetrieverClient::Lookup(LookupRequest request, Callback done) {
  auto call = std::make_shared<Call>();
  call->request = std::move(request);
  call->done = std::move(done);
  call->scope = static_cast<const RetrievalScope*>(call->request.scope.get());
  call->search = call->scope->search;
  for (const ChunkQuery& chunk : call->request.chunks) {
    const std::string bytes = model_.tokenizer->Decode(chunk.tokens);
    const std::string_view text = LongestValidUtf8(bytes);
    const bool given = call->scope->given.contains(chunk.chunk) && !call->scope->append;
    call->query_of_chunk.push_back(given || text.empty() ? -1 : call->search.queries_size());
    if (call->query_of_chunk.back() >= 0) call->search.add_queries()->set_text(std::string(text));
  }
  if (call->search.queries().empty()) {
    LookupAnswer answer = AnswerOf(*call, absl::OkStatus());
    answer.asked = false;
    return call->done(std::move(answer));
  }
  {
    MutexLock lock(mutex_);
    calls_[call->request.lookup] = call;
  }
  if (store_.Find(call->search.collection()).has_value()) {
    Search(call);
  } else {
    AskStore(call);
  }
}

// Which tokenizer a collection has must be known before its neighbours can be read.
void RetrieverClient::AskStore(const CallPtr& call) {
  call->Prepare(call->store_context);
  stub_->async()->GetInfo(&call->store_context, &call->store_request, &call->store_response,
                          [this, call](const grpc::Status& status) {
                            if (!status.ok()) return Fail(call, Explain(status, call->scope->timeout_ms));
                            store_.Update(call->store_response);
                            Search(call);
                          });
}

void RetrieverClient::Search(const CallPtr& call) {
  call->Prepare(call->search_context);
  stub_->async()->Search(&call->search_context, &call->search, &call->response,
                         [this, call](const grpc::Status& status) { OnSearched(call, status); });
}

void RetrieverClient::OnSearched(const CallPtr& call, const grpc::Status& status) {
  if (!status.ok()) return Fail(call, Explain(status, call->scope->timeout_ms));
  if (call->response.results_size() != call->search.queries_size()) {
    return Fail(call, Error(absl::StatusCode::kInternal, Reason::kRetrievalFailed,
                            StrCat("the retriever at ", target_, " gave a wrong number of results")));
  }
  Complete(call, AnswerOf(*call, absl::OkStatus()));
}

void RetrieverClient::Fail(const CallPtr& call, const absl::Status& failure) {
  if (!call->scope->go_on_without) return Complete(call, failure);
  Complete(call, AnswerOf(*call, failure));
}

LookupAnswer RetrieverClient::AnswerOf(Call& call, const absl::Status& failure) const {
  // A collection that GetInfo did not name is one that Search has refused, or made since: then its texts are taken.
  const CollectionView store = store_.Find(call.search.collection()).value_or(CollectionView{});
  LookupAnswer answer;
  for (size_t i = 0; i < call.request.chunks.size(); ++i) {
    FoundNeighbours& found = answer.chunks.emplace_back(Found(call, i, store, failure.ok()));
    if (failure.ok() || call.query_of_chunk[i] < 0) continue;
    found.degradation = DegradationOf(failure);
    found.degradation_message = std::string(MessageOf(failure));
  }
  return answer;
}

FoundNeighbours RetrieverClient::Found(Call& call, size_t chunk, const CollectionView& store, bool answered) const {
  FoundNeighbours found;
  auto shown = std::make_shared<ShownNeighbours>();
  const int64_t number = call.request.chunks[chunk].chunk;
  if (const auto given = call.scope->given.find(number); given != call.scope->given.end())
    shown->message = given->second;
  shown->message.set_chunk_number(static_cast<uint32_t>(number));
  const int query = call.query_of_chunk[chunk];
  if (query >= 0 && answered) {
    for (pb::Neighbour& neighbour : *call.response.mutable_results(query)->mutable_neighbours()) {
      if (shown->message.neighbours_size() >= static_cast<int>(call.search.k())) break;
      if (tokens_.Fit(store.same_tokenizer, store.store, &neighbour)) ++found.retokenised;
      *shown->message.add_neighbours() = std::move(neighbour);
    }
    if (call.response.has_times()) shown->times = call.response.times();
    const pb::Coverage& coverage = call.response.coverage();
    if (coverage.shards_answered() < coverage.shards_asked()) {
      found.degradation = Degradation::kPartialCoverage;
      found.degradation_message =
          StrCat(coverage.shards_answered(), " of ", coverage.shards_asked(), " shards answered");
    }
  }
  found.rows = tokens_.Rows(shown->message);
  found.details = std::move(shown);
  return found;
}

absl::Status RetrieverClient::Explain(const grpc::Status& status, std::chrono::milliseconds timeout_ms) const {
  absl::Status error = FromGrpcStatus(status);
  switch (error.code()) {
    case absl::StatusCode::kInvalidArgument:
      if (const auto field = FieldOf(error)) SetField(error, "retrieval." + *field);
      return error;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kCancelled:
      return error;
    case absl::StatusCode::kDeadlineExceeded:
      return Error(absl::StatusCode::kDeadlineExceeded, Reason::kRetrievalFailed,
                   StrCat("the retriever at ", target_, " gave no answer within ", timeout_ms.count(), " ms"));
    default:
      break;
  }
  // With a reason of ours it comes from the retriever itself, else from the way there.
  const std::string what =
      ReasonOf(error).has_value()
          ? StrCat(" refused: ", MessageOf(error))
          : StrCat(" could not be asked (", MessageOf(error),
                   "): is retro-retriever running there? The generator's --retriever names the address");
  return Error(absl::StatusCode::kUnavailable, Reason::kRetrievalFailed, StrCat("the retriever at ", target_, what));
}

void RetrieverClient::Complete(const CallPtr& call, absl::StatusOr<LookupAnswer> answer) {
  call->done(std::move(answer));
  MutexLock lock(mutex_);
  calls_.erase(call->request.lookup);
  idle_.NotifyAll();
}

void RetrieverClient::CancelLookup(uint64_t lookup) {
  MutexLock lock(mutex_);
  const auto call = calls_.find(lookup);
  if (call == calls_.end()) return;
  call->second->store_context.TryCancel();
  call->second->search_context.TryCancel();
}

void RetrieverClient::RefreshStore(std::chrono::milliseconds timeout_ms) {
  grpc::ClientContext context;
  context.set_deadline(WallTime(Clock::now() + timeout_ms));
  pb::GetInfoResponse response;
  const grpc::Status status = stub_->GetInfo(&context, {}, &response);
  store_.Update(status.ok() ? std::optional(std::move(response)) : std::nullopt);
}

}  // namespace retro
