// Replicas of one shard, each with its server, in this process, and a router before them: what tests of replicas begin
// with.
#pragma once

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/content_hash.h"
#include "common/document/half.h"
#include "retriever_service/replica/replica_admin.h"
#include "retriever_service/shard/remote_shard.h"
#include "tests/free_port.h"
#include "tests/replica_member.h"
#include "tests/temporary_folder.h"

namespace retro {

inline void WaitUntil(const std::string& what, const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << what;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

class ReplicaTest : public testing::Test {
 protected:
  ReplicaTest() { spdlog::set_level(spdlog::level::off); }
  ~ReplicaTest() override {
    router_.reset();
    members_.clear();
  }

  void MakeCluster(const std::vector<std::string>& names, uint32_t min_in_sync = 1) {
    ClusterConfig config;
    config.version = 1;
    config.cluster = "test";
    config.store_id = "0123456789abcdef";
    config.min_in_sync = min_in_sync;
    ShardConfig& shard = config.shards.emplace_back();
    shard.last_slot = 4095;
    shard.primary = names[0];
    for (const std::string& name : names) shard.replicas.push_back({name, StrCat("127.0.0.1:", FreePort())});
    ASSERT_TRUE(WriteFileAtomically(file_, FormatClusterFile(config)).ok());
    for (const std::string& name : names) StartMember(name);
    auto watch = ClusterWatch::Start(file_);
    ASSERT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
    router_ = std::make_unique<RemoteShard>(
        0, ClusterView{[this] { return watch_->Get(); }, [this] { watch_->Reload(); }, {}}, metrics_);
  }

  void StartMember(const std::string& name) {
    const auto config = ReadClusterFile(file_);
    ASSERT_TRUE(config.ok());
    members_[name] = std::make_unique<Member>(file_, folder_ / name, name, config->shards[0].Find(name)->address,
                                              log_changes_max_, late_after_);
  }
  void StopMember(const std::string& name) { members_.erase(name); }

  // In the cluster file, in what each of them knows of it, and in what they hold.
  void WaitForInSync(const std::vector<std::string>& names) {
    WaitUntil("in sync", [&] {
      const auto config = watch_->Get();
      const std::vector<std::string>& in_sync = config->shards[0].in_sync;
      if (std::set<std::string>(in_sync.begin(), in_sync.end()) != std::set<std::string>(names.begin(), names.end())) {
        return false;
      }
      std::set<std::pair<uint64_t, uint64_t>> positions;
      for (const std::string& name : names) {
        const auto info = members_.at(name)->shard().GetShardInfo({}, CallContext());
        if (!info.ok() || !info->in_sync() || info->epoch() != config->shards[0].epoch) return false;
        positions.emplace(info->position().epoch(), info->position().number());
      }
      return positions.size() == 1;
    });
  }

  static shardpb::WriteRequest Document(const std::string& id, const std::string& text) {
    shardpb::WriteRequest request;
    shardpb::DocumentChange& change = *request.add_changes();
    change.mutable_document()->set_id(id);
    change.mutable_document()->set_text(text);
    for (const char* key : {"x", "y", "z"}) {
      (*change.mutable_document()->mutable_metadata())[key].add_values()->set_string_value(text);
    }
    change.set_content_hash(ContentHash(change.document()));
    change.set_text_hash(TextHash(text));
    change.add_chunks()->set_end(text.size());
    change.mutable_chunks(0)->set_vector_fp16(ToHalf(std::vector<float>{1, static_cast<float>(text.size())}));
    return request;
  }

  // More than a message may be, as a write and all the more as a change, whose rows repeat the document's id.
  static constexpr size_t kLargeDocumentChunks = 12'000;
  static shardpb::WriteRequest LargeDocument(const std::string& id) {
    constexpr int kTokensAChunk = 560;  // of 10 bytes each
    shardpb::WriteRequest request = Document(id, std::string(kLargeDocumentChunks, 'x'));
    shardpb::DocumentChange& change = *request.mutable_changes(0);
    (*change.mutable_document()->mutable_metadata()).clear();
    change.set_content_hash(ContentHash(change.document()));
    const std::string vector = change.chunks(0).vector_fp16();
    change.clear_chunks();
    for (size_t end = 1; end <= kLargeDocumentChunks; ++end) {
      shardpb::ChunkContent& chunk = *change.add_chunks();
      chunk.set_end(end);
      for (int i = 0; i < kTokensAChunk; ++i) chunk.add_token_ids(-1);
      chunk.set_vector_fp16(vector);
    }
    return request;
  }

  // Through the router, until it is acknowledged.
  void Write(const std::string& id, const std::string& text) {
    WaitUntil(StrCat("write of ", id), [&] {
      const auto response = router_->Write(Document(id, text), CallContext());
      return response.ok() && !response->results(0).has_error();
    });
  }
  absl::Status TryWrite(const std::string& id, const std::string& text) {
    return router_->Write(Document(id, text), CallContext()).status();
  }
  // A write of the cluster file's epoch.
  bool Refuses(const std::string& member, Reason reason) {
    auto request = Document("refused", "x");
    request.set_epoch(watch_->Get()->shards[0].epoch);
    return ReasonOf(members_.at(member)->shard().Write(request, CallContext()).status()) == reason;
  }
  void Delete(const std::string& id) {
    shardpb::DeleteRequest request;
    request.add_document_ids(id);
    ASSERT_TRUE(router_->Delete(request, CallContext()).ok());
  }

  static absl::StatusOr<int> ChangesAfter(const LocalShard& shard, const shardpb::Position& after) {
    int changes = 0;
    RETRO_RETURN_IF_ERROR(shard.ReadChanges(after, SIZE_MAX, SIZE_MAX, std::chrono::steady_clock::now(), [&](auto) {
      ++changes;
      return absl::OkStatus();
    }));
    return changes;
  }

  absl::StatusOr<std::string> ReadOn(const std::string& member, const std::string& id) {
    shardpb::GetDocumentRequest request;
    request.set_document_id(id);
    RETRO_ASSIGN_OR_RETURN(const auto response, members_.at(member)->shard().GetDocument(request, CallContext()));
    return response.document().text();
  }
  shardpb::Position PositionOf(const std::string& member) {
    return (*members_.at(member)->shard().local())->position();
  }
  // A read of "one" with a token.
  absl::Status ReadAfter(const std::string& member, const shardpb::Position& position) {
    shardpb::GetDocumentRequest request;
    request.set_document_id("one");
    *request.mutable_barrier()->mutable_position() = position;
    return members_.at(member)->shard().GetDocument(request, CallContext()).status();
  }
  std::string DigestOf(const std::string& member) {
    const auto response = MakeReplicaAdmin(members_.at(member)->replica())->Verify({}, CallContext());
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? response->content_sha256() : "";
  }
  void ExpectEqual(const std::string& a, const std::string& b) {
    EXPECT_EQ(DigestOf(a), DigestOf(b));
    shardpb::SearchRequest search;
    search.set_k(100);
    for (const float x : {1.0F, 9.0F}) {
      if (search.queries().empty()) search.add_queries();
      search.mutable_queries(0)->mutable_vector()->add_values(x);
    }
    const auto from_a = members_.at(a)->shard().Search(search, CallContext());
    const auto from_b = members_.at(b)->shard().Search(search, CallContext());
    ASSERT_TRUE(from_a.ok() && from_b.ok()) << from_a.status() << from_b.status();
    ASSERT_EQ(from_a->results(0).neighbours_size(), from_b->results(0).neighbours_size());
    for (int i = 0; i < from_a->results(0).neighbours_size(); ++i) {
      EXPECT_EQ(from_a->results(0).neighbours(i).document_id(), from_b->results(0).neighbours(i).document_id());
      EXPECT_EQ(from_a->results(0).neighbours(i).distance(), from_b->results(0).neighbours(i).distance());
    }
    EXPECT_EQ(from_a->position().number(), from_b->position().number());
  }

  TemporaryFolder folder_;
  const std::string file_ = folder_ / "cluster.json";
  uint64_t log_changes_max_ = 1000;
  // A follower that is later is dropped: seldom too soon for tests that drop one, and kNever for those in which what
  // was acknowledged must be on all.
  static constexpr std::chrono::minutes kNever{10};
  std::chrono::milliseconds late_after_{300};
  std::map<std::string, std::unique_ptr<Member>> members_;
  Metrics metrics_;
  std::unique_ptr<ClusterWatch> watch_;
  std::unique_ptr<RemoteShard> router_;
};

}  // namespace retro
