#include "generator_service/serve/retriever_client.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <iterator>
#include <list>
#include <memory>
#include <utility>

#include "common/base/error.h"
#include "common/base/handover.h"
#include "common/base/strings.h"
#include "common/rpc/header.h"
#include "common/rpc/status.h"
#include "generator_service/engine/generation.h"

namespace retro {
namespace {

namespace pb = ::retro::retriever::v1;

constexpr int kMessageBytesMax = 64 << 20;
constexpr int kReconnectMsMax = 1000;
// That decode chunks and tokenise neighbours. Whatever waits is one of the engine's look-ups, at most one a session.
constexpr int kWorkers = 2;
constexpr size_t kWorkQueuedMax = 256;
// Between two tries at a retriever that is full.
constexpr std::chrono::milliseconds kPauseMin{10};
constexpr size_t kTriesMax = 16;
// After the first answer that was lost, and how much longer after each further one.
constexpr std::chrono::milliseconds kLossPause{20};
constexpr int kLossPauseGrowth = 3;
constexpr int kLossesMax = 3;

std::chrono::system_clock::time_point WallTime(Clock::time_point deadline) {
  const auto left =
      std::clamp<Clock::duration>(deadline - Clock::now(), Clock::duration::zero(), std::chrono::hours(1));
  return std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::milliseconds>(left);
}

// "a,b,c", as many as there is room for.
std::string JoinedRequestIds(const std::vector<ChunkLookupPtr>& lookups) {
  std::string joined;
  for (const ChunkLookupPtr& lookup : lookups) {
    const std::string& id = lookup->request().request_id;
    const std::string_view comma = joined.empty() ? "" : ",";
    if (id.empty() || joined.size() + comma.size() + id.size() > kRequestIdBytesMax) continue;
    joined.append(comma).append(id);
  }
  return joined;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeRetrieverChannel(const std::string& target,
                                                                    const ClientSecurity& security) {
  grpc::ChannelArguments arguments;
  arguments.SetLoadBalancingPolicyName("round_robin");
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMsMax);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMsMax / 10);
  return MakeChannel(target, security, arguments, "retriever-");
}

// One Search under way, for the queries of one or more look-ups. Its RPCs follow each other, so no two threads touch it
// at once, but for what is guarded by the client's mutex. Its look-ups own it until they are complete; gRPC's callbacks
// only name it.
struct RetrieverClient::Call : std::enable_shared_from_this<Call> {
  std::vector<QueryPlace> queries;
  std::vector<ChunkLookupPtr> lookups;  // that they belong to
  Clock::time_point deadline;           // of the most patient one; the engine keeps the others'
  std::chrono::milliseconds timeout_ms{0};
  std::string request_ids;
  std::string traceparent;  // of the first look-up
  int losses = 0;           // answers that did not come, and after which it was repeated

  pb::GetInfoRequest store_request;
  pb::GetInfoResponse store_response;
  pb::SearchRequest search;
  pb::SearchResponse response;

  // Guarded by the client's mutex; the last context is that of the RPC under way.
  std::list<grpc::ClientContext> contexts;
  std::list<grpc::Alarm> pauses;

  grpc::ClientContext& NewContext() {
    grpc::ClientContext& context = contexts.emplace_back();
    context.set_deadline(WallTime(deadline));
    context.AddMetadata(kRequestIdHeader, request_ids);
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    return context;
  }

  // After this failure, before a repetition; nothing where that would not help. UNAVAILABLE is what a retriever that
  // dies leaves of its calls, and CANCELLED what one leaves that stops. There the delay that it may name is not waited
  // for: the next try goes to another one, if there is any.
  std::optional<std::chrono::milliseconds> PauseAfter(const absl::Status& failure) {
    if (absl::IsResourceExhausted(failure)) {
      const std::optional<std::chrono::milliseconds> named = RetryAfterOf(failure);
      return named.has_value() ? std::optional(std::max(*named, kPauseMin)) : std::nullopt;
    }
    const bool lost = absl::IsUnavailable(failure) || absl::IsCancelled(failure);
    if (!lost || losses == kLossesMax) return std::nullopt;
    std::chrono::milliseconds pause = kLossPause;
    for (int i = 0; i < losses; ++i) pause *= kLossPauseGrowth;
    ++losses;
    return pause;
  }
};

RetrieverClient::RetrieverClient(std::shared_ptr<grpc::Channel> channel, std::string target, const ServedModel& model,
                                 NeighbourTokens& tokens, StoreView& store, ByteBudget& budget)
    : target_(std::move(target)),
      stub_(pb::RetrieverService::NewStub(std::move(channel))),
      model_(model),
      tokens_(tokens),
      store_(store),
      budget_(budget),
      workers_(kWorkers, kWorkQueuedMax) {}

RetrieverClient::~RetrieverClient() {
  MutexLock lock(mutex_);
  stopping_ = true;
  for (const auto& [id, pending] : pending_) {
    for (const CallPtr& call : pending.calls) CancelCall(*call);
  }
  while (!pending_.empty() || callbacks_ > 0) idle_.Wait(mutex_);
}

void RetrieverClient::InBackground(const std::function<void()>& work) {
  if (!workers_.Submit(work)) work();
}

// The last thing that a callback does. It holds nothing: whoever drops the last of a channel waits for gRPC's threads,
// and must not be one of them.
void RetrieverClient::EndCallback(const std::function<void()>& work) {
  InBackground(work);
  MutexLock lock(mutex_);
  --callbacks_;
  idle_.NotifyAll();
}

void RetrieverClient::Lookup(std::vector<LookupRequest> requests, Callback done) {
  std::vector<ChunkLookupPtr> lookups;
  lookups.reserve(requests.size());
  for (LookupRequest& request : requests) lookups.push_back(std::make_shared<ChunkLookup>(std::move(request)));
  {
    MutexLock lock(mutex_);
    for (const ChunkLookupPtr& lookup : lookups) {
      pending_.emplace(lookup->request().lookup, Pending{lookup, done, {}, false});
    }
  }
  InBackground([this, lookups = std::move(lookups)] { Begin(lookups); });
}

void RetrieverClient::Begin(const std::vector<ChunkLookupPtr>& lookups) {
  std::vector<ChunkLookupPtr> nothing_to_ask;
  for (const ChunkLookupPtr& lookup : lookups) {
    lookup->Prepare(*model_.tokenizer);
    if (lookup->complete()) nothing_to_ask.push_back(lookup);
  }
  Complete(nothing_to_ask);
  for (std::vector<QueryPlace>& queries : ShareOutQueries(lookups)) Send(std::move(queries));
}

void RetrieverClient::Send(std::vector<QueryPlace> queries) {
  auto call = std::make_shared<Call>();
  const RetrievalScope& scope = queries.front().lookup->scope();
  call->timeout_ms = scope.timeout_ms;
  call->search = scope.search;
  for (const QueryPlace& query : queries) {
    call->search.add_queries()->set_text(query.lookup->text(query.chunk));
    if (!call->lookups.empty() && call->lookups.back() == query.lookup) continue;
    call->lookups.push_back(query.lookup);
    call->deadline = std::max(call->deadline, query.lookup->request().deadline);
  }
  call->request_ids = JoinedRequestIds(call->lookups);
  call->traceparent = call->lookups.front()->request().traceparent;
  call->queries = std::move(queries);
  {
    MutexLock lock(mutex_);
    for (const ChunkLookupPtr& lookup : call->lookups) pending_.at(lookup->request().lookup).calls.push_back(call);
  }
  if (store_.Find(call->search.collection()).has_value()) {
    Search(call);
  } else {
    AskStore(call);
  }
}

// Which tokenizer a collection has must be known before its neighbours can be read.
void RetrieverClient::AskStore(const CallPtr& call) {
  grpc::ClientContext* context = nullptr;
  {
    MutexLock lock(mutex_);
    if (Wanted(*call)) {
      context = &call->NewContext();
      ++callbacks_;
    }
  }
  if (context == nullptr) return Fail(call, CallerGoneError(/*deadline_passed=*/false));
  HandOver(call.get());
  stub_->async()->GetInfo(context, &call->store_request, &call->store_response,
                          [this, of = call.get()](const grpc::Status& status) {
                            TakeOver(of);
                            EndCallback([this, of, status] { OnStore(of->shared_from_this(), status); });
                          });
}

void RetrieverClient::OnStore(const CallPtr& call, const grpc::Status& status) {
  if (!status.ok()) {
    const absl::Status error = FromGrpcStatus(status);
    if (!RepeatLater(call, error, &RetrieverClient::AskStore)) Fail(call, Explain(error, call->timeout_ms));
    return;
  }
  store_.Update(call->store_response);
  Search(call);
}

void RetrieverClient::Search(const CallPtr& call) {
  grpc::ClientContext* context = nullptr;
  {
    MutexLock lock(mutex_);
    if (Wanted(*call)) {
      context = &call->NewContext();
      ++callbacks_;
    }
  }
  if (context == nullptr) return Fail(call, CallerGoneError(/*deadline_passed=*/false));
  HandOver(call.get());
  stub_->async()->Search(context, &call->search, &call->response, [this, of = call.get()](const grpc::Status& status) {
    TakeOver(of);
    EndCallback([this, of, status] { OnSearched(of->shared_from_this(), status); });
  });
}

void RetrieverClient::OnSearched(const CallPtr& call, const grpc::Status& status) {
  if (!status.ok()) {
    const absl::Status error = FromGrpcStatus(status);
    if (!RepeatLater(call, error, &RetrieverClient::Search)) Fail(call, Explain(error, call->timeout_ms));
    return;
  }
  if (call->response.results_size() != call->search.queries_size()) {
    return Fail(call, Error(absl::StatusCode::kInternal, Reason::kRetrievalFailed,
                            StrCat("the retriever at ", target_, " gave a wrong number of results")));
  }
  Deliver(call);
}

// What is asked changes nothing, so it may be repeated. True: it will be.
bool RetrieverClient::RepeatLater(const CallPtr& call, const absl::Status& failure, Rpc rpc) {
  const std::optional<std::chrono::milliseconds> pause = call->PauseAfter(failure);
  if (!pause.has_value() || Clock::now() + *pause >= call->deadline) return false;
  MutexLock lock(mutex_);
  if (!Wanted(*call) || call->contexts.size() >= kTriesMax) return false;
  ++callbacks_;
  HandOver(call.get());
  call->pauses.emplace_back().Set(WallTime(Clock::now() + *pause), [this, rpc, of = call.get()](bool /*passed*/) {
    TakeOver(of);
    EndCallback([this, rpc, of] { (this->*rpc)(of->shared_from_this()); });
  });
  return true;
}

// A call of several look-ups that is refused for what one of them asks is repeated one by one, so that the fault stays
// with its own.
void RetrieverClient::Fail(const CallPtr& call, const absl::Status& failure) {
  if (!absl::IsInvalidArgument(failure) || call->lookups.size() == 1) {
    return DeliverFailure(call, failure);
  }
  for (const ChunkLookupPtr& lookup : call->lookups) {
    std::vector<QueryPlace> own;
    std::ranges::copy_if(call->queries, std::back_inserter(own),
                         [&](const QueryPlace& query) { return query.lookup == lookup; });
    Send(std::move(own));
  }
}

void RetrieverClient::Deliver(const CallPtr& call) {
  std::vector<ChunkLookupPtr> complete;
  {
    MutexLock lock(mutex_);
    for (int i = 0; i < call->response.results_size(); ++i) {
      const auto& [lookup, chunk] = call->queries[static_cast<size_t>(i)];
      ChunkLookup::Reply reply{std::move(*call->response.mutable_results(i)), {}, call->response.coverage()};
      if (call->response.has_times()) reply.times = call->response.times();
      lookup->OnReply(chunk, std::move(reply));
      if (lookup->complete()) complete.push_back(lookup);
    }
  }
  Complete(complete);
}

void RetrieverClient::DeliverFailure(const CallPtr& call, const absl::Status& failure) {
  std::vector<ChunkLookupPtr> complete;
  {
    MutexLock lock(mutex_);
    for (const auto& [lookup, chunk] : call->queries) {
      lookup->OnFailure(chunk, failure);
      if (lookup->complete()) complete.push_back(lookup);
    }
  }
  Complete(complete);
}

// First all answers, then all callbacks: sequences that were in step stay so, and their next look-ups go together too.
void RetrieverClient::Complete(const std::vector<ChunkLookupPtr>& lookups) {
  std::vector<absl::StatusOr<LookupAnswer>> answers;
  for (const ChunkLookupPtr& lookup : lookups) {
    bool wanted = false;
    {
      MutexLock lock(mutex_);
      wanted = !pending_.at(lookup->request().lookup).cancelled;
    }
    // A collection that GetInfo did not name is one that Search has refused, or made since: then its texts are taken.
    const CollectionView store = store_.Find(lookup->scope().search.collection()).value_or(CollectionView{});
    answers.push_back(wanted ? lookup->Answer(tokens_, store, budget_) : CallerGoneError(/*deadline_passed=*/false));
  }
  for (size_t i = 0; i < lookups.size(); ++i) {
    const uint64_t id = lookups[i]->request().lookup;
    Callback done;
    {
      MutexLock lock(mutex_);
      done = std::move(pending_.at(id).done);
    }
    done(id, std::move(answers[i]));
    MutexLock lock(mutex_);
    pending_.erase(id);
    idle_.NotifyAll();
  }
}

void RetrieverClient::CancelCall(Call& call) {
  if (!call.contexts.empty()) call.contexts.back().TryCancel();
  if (!call.pauses.empty()) call.pauses.back().Cancel();
}

bool RetrieverClient::Wanted(const Call& call) const {
  if (stopping_) return false;
  for (const ChunkLookupPtr& lookup : call.lookups) {
    const auto pending = pending_.find(lookup->request().lookup);
    if (pending != pending_.end() && !pending->second.cancelled) return true;
  }
  return false;
}

void RetrieverClient::CancelLookup(uint64_t lookup) {
  MutexLock lock(mutex_);
  const auto pending = pending_.find(lookup);
  if (pending == pending_.end()) return;
  pending->second.cancelled = true;
  for (const CallPtr& call : pending->second.calls) {
    if (!Wanted(*call)) CancelCall(*call);
  }
}

// Faults of the request and a retriever that is full keep their code; whatever else is between us and it.
absl::Status RetrieverClient::Explain(const absl::Status& error, std::chrono::milliseconds timeout_ms) const {
  const std::optional<Reason> reason = ReasonOf(error);
  absl::Status explained = error;
  switch (error.code()) {
    case absl::StatusCode::kInvalidArgument:
      if (const auto field = FieldOf(error)) SetField(explained, "retrieval." + *field);
      return explained;
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
      reason.has_value() ? StrCat(" refused: ", MessageOf(error))
                         : StrCat(" could not be asked (", MessageOf(error),
                                  "): is retro-retriever running there? The generator's --retriever names the address");
  const bool full = absl::IsResourceExhausted(error) && reason.has_value();
  explained = Error(full ? error.code() : absl::StatusCode::kUnavailable, full ? *reason : Reason::kRetrievalFailed,
                    StrCat("the retriever at ", target_, what));
  if (const auto delay = RetryAfterOf(error)) SetRetryAfter(explained, *delay);
  return explained;
}

std::optional<pb::GetInfoResponse> RetrieverClient::FetchStore(grpc::ClientContext& context,
                                                               std::chrono::milliseconds timeout_ms) {
  context.set_deadline(WallTime(Clock::now() + timeout_ms));
  pb::GetInfoResponse response;
  const grpc::Status status = stub_->GetInfo(&context, {}, &response);
  if (!status.ok()) return std::nullopt;
  return response;
}

}  // namespace retro
