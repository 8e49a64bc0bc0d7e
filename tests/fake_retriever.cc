#include "tests/fake_retriever.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <thread>
#include <utility>

#include "tests/tiny_model.h"

namespace retro {
namespace {

namespace pb = ::retro::retriever::v1;

// As a chunk of a collection cut by ByteTokenizer would be.
void FillChunk(const std::string& text, uint64_t id, pb::Chunk* chunk) {
  chunk->set_chunk_id(id);
  chunk->set_text(text);
  for (const TokenId token : Ids(text)) chunk->add_token_ids(token);
}

uint64_t IdOf(const std::string& text) { return std::hash<std::string>()(text); }

}  // namespace

FakeRetriever::FakeRetriever(std::string tokenizer_fingerprint) : tokenizer_(std::move(tokenizer_fingerprint)) {
  coverage_.set_shards_answered(1);
  coverage_.set_shards_asked(1);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

FakeRetriever::~FakeRetriever() { Stop(); }

void FakeRetriever::Stop() {
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
}

std::string FakeRetriever::address() const { return "127.0.0.1:" + std::to_string(port_); }

void FakeRetriever::SetStatus(grpc::Status status) {
  MutexLock lock(mutex_);
  status_ = std::move(status);
}

void FakeRetriever::SetNextStatus(grpc::Status status) {
  MutexLock lock(mutex_);
  next_status_ = std::move(status);
}

void FakeRetriever::SetInfoStatus(grpc::Status status) {
  MutexLock lock(mutex_);
  info_status_ = std::move(status);
}

void FakeRetriever::SetDelay(std::chrono::milliseconds delay) {
  MutexLock lock(mutex_);
  delay_ = delay;
}

void FakeRetriever::SetInfoDelay(std::chrono::milliseconds delay) {
  MutexLock lock(mutex_);
  info_delay_ = delay;
}

void FakeRetriever::SetRefusedText(std::string text) {
  MutexLock lock(mutex_);
  refused_text_ = std::move(text);
}

std::chrono::milliseconds FakeRetriever::delay() const {
  MutexLock lock(mutex_);
  return delay_;
}

void FakeRetriever::SetCoverage(uint32_t answered, uint32_t asked) {
  MutexLock lock(mutex_);
  coverage_.set_shards_answered(answered);
  coverage_.set_shards_asked(asked);
}

void FakeRetriever::SetTitle(std::string title) {
  MutexLock lock(mutex_);
  title_ = std::move(title);
}

void FakeRetriever::SetTokenizer(std::string fingerprint) {
  MutexLock lock(mutex_);
  tokenizer_ = std::move(fingerprint);
}

std::vector<pb::SearchRequest> FakeRetriever::requests() const {
  MutexLock lock(mutex_);
  return requests_;
}

int FakeRetriever::queries() const {
  MutexLock lock(mutex_);
  int queries = 0;
  for (const pb::SearchRequest& request : requests_) queries += request.queries_size();
  return queries;
}

std::vector<std::string> FakeRetriever::request_ids() const {
  MutexLock lock(mutex_);
  return request_ids_;
}

std::vector<std::string> FakeRetriever::traceparents() const {
  MutexLock lock(mutex_);
  return traceparents_;
}

int FakeRetriever::cancelled() const {
  MutexLock lock(mutex_);
  return cancelled_;
}

int FakeRetriever::info_calls() const {
  MutexLock lock(mutex_);
  return info_calls_;
}

grpc::Status FakeRetriever::Search(grpc::ServerContext* context, const pb::SearchRequest* request,
                                   pb::SearchResponse* response) {
  grpc::Status status;
  std::string title;
  {
    MutexLock lock(mutex_);
    requests_.push_back(*request);
    const auto header = [context](const char* name) {
      const auto found = context->client_metadata().find(name);
      return found == context->client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
    };
    request_ids_.push_back(header("x-request-id"));
    traceparents_.push_back(header("traceparent"));
    status = next_status_.ok() ? status_ : std::exchange(next_status_, grpc::Status::OK);
    title = title_;
    for (const pb::Query& query : request->queries()) {
      if (!refused_text_.empty() && query.text() == refused_text_) status = {grpc::StatusCode::INVALID_ARGUMENT, "bad"};
    }
    *response->mutable_coverage() = coverage_;
  }
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() < start + delay()) {
    if (context->IsCancelled()) {
      MutexLock lock(mutex_);
      ++cancelled_;
      return grpc::Status::CANCELLED;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (!status.ok()) return status;
  for (const pb::Query& query : request->queries()) {
    pb::QueryResult* result = response->add_results();
    for (uint32_t i = 0; i < request->k(); ++i) {
      pb::Neighbour* neighbour = result->add_neighbours();
      const std::string text = "n" + std::to_string(i) + ":" + query.text();
      FillChunk(text, IdOf(text), neighbour->mutable_chunk());
      if (i % 2 == 0) FillChunk("next", IdOf(text) + 1, neighbour->mutable_continuation());
      neighbour->set_document_id("doc" + std::to_string(i));
      neighbour->set_title(title);
      neighbour->set_distance(0.5F + static_cast<float>(i));
    }
  }
  response->mutable_times()->mutable_search()->set_nanos(1000);
  return grpc::Status::OK;
}

grpc::Status FakeRetriever::GetInfo(grpc::ServerContext* context, const pb::GetInfoRequest* /*request*/,
                                    pb::GetInfoResponse* response) {
  auto until = std::chrono::steady_clock::now();
  {
    MutexLock lock(mutex_);
    ++info_calls_;
    until += info_delay_;
  }
  while (std::chrono::steady_clock::now() < until) {
    if (context->IsCancelled()) return grpc::Status::CANCELLED;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  MutexLock lock(mutex_);
  if (!info_status_.ok()) return std::exchange(info_status_, grpc::Status::OK);
  response->set_store_id(std::string(16, 's'));
  response->set_embedder_fingerprint(std::string(32, 'e'));
  response->set_embedder_name("fake");
  pb::CollectionSpec* spec = response->add_collections();
  spec->set_tokenizer_fingerprint(tokenizer_);
  spec->set_chunk_size(8);
  return grpc::Status::OK;
}

}  // namespace retro
