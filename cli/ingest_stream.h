// The Ingest call with a bounded window, which survives broken connections.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cli/interrupt.h"
#include "cli/protocol.h"
#include "common/base/sync.h"

namespace retro::cli {

struct IngestOptions {
  std::string collection;
  // Documents and bytes that are sent and not yet acknowledged; one document alone may exceed the bytes.
  size_t window_documents_max = 256;
  size_t window_bytes_max = 32 << 20;
  // A broken stream is opened again after a pause, doubled each time, at most so many times without any acknowledgement
  // between. What was not acknowledged is sent again; the server answers UNCHANGED to what it has already.
  int reconnects_max = 6;
  std::chrono::milliseconds pause_min{200};
  std::chrono::milliseconds pause_max{5000};
  // Longest time without any acknowledgement while one is due.
  std::chrono::milliseconds silence_max{300'000};
};

// What the sender remembers of a document until it is acknowledged.
struct IngestTag {
  size_t file = 0;       // the sender's number for the file
  uint64_t ordinal = 0;  // see Reading
  bool last_of_ordinal = true;
};

struct IngestAcknowledgement {
  IngestTag tag;
  pb::DocumentResult result;
};

// Send, Finish and TakeAcknowledgements are called by one thread; threads of its own read, and watch for silence.
class IngestStream {
 public:
  // `stub` must outlive the stream.
  IngestStream(pb::RetrieverService::Stub& stub, IngestOptions options);
  // Cancels what is under way.
  ~IngestStream();
  IngestStream(const IngestStream&) = delete;
  IngestStream& operator=(const IngestStream&) = delete;

  // Queues and sends one document; waits while the window is full. An error is final: the reconnects are used up, the
  // server refuses the call, or Ctrl-C.
  grpc::Status Send(pb::DocumentWrite write, IngestTag tag);
  // Waits for every acknowledgement and closes the stream.
  grpc::Status Finish();

  // What was acknowledged since the last call, in the order of sending.
  std::vector<IngestAcknowledgement> TakeAcknowledgements();
  size_t unacknowledged_count();
  int reconnect_count() const { return reconnect_count_; }

 private:
  using Stream = grpc::ClientReaderWriter<pb::IngestRequest, pb::IngestResponse>;
  struct Pending {
    std::shared_ptr<const pb::IngestRequest> request;
    IngestTag tag;
    size_t bytes = 0;
  };
  // One call.
  struct Attempt {
    grpc::ClientContext context;
    std::optional<CancelOnInterrupt> cancel;
    std::unique_ptr<Stream> stream;
    std::thread reader;
  };

  void Open();
  // The call's end as the server saw it; the attempt is gone afterwards.
  grpc::Status Close();
  // Closes a broken attempt; OK after a pause if another one may be tried.
  grpc::Status Recover();
  // Sends everything that is queued.
  grpc::Status SendQueued();
  // The next request to be sent, counted as sent; null if there is none.
  std::shared_ptr<const pb::IngestRequest> NextUnsent();
  // True once there is room for `bytes`, false if the attempt broke while there was none.
  bool AwaitRoom(size_t bytes);
  // True once all is acknowledged, false if the attempt broke.
  bool AwaitAll();
  void ReadLoop(Stream& stream);
  // False if it is not for the oldest document that was sent.
  bool Acknowledge(pb::IngestResponse response);
  void WatchLoop();

  pb::RetrieverService::Stub& stub_;
  const IngestOptions options_;

  // The sender's alone.
  uint64_t next_sequence_ = 1;
  int reconnect_count_ = 0;
  std::unique_ptr<Attempt> attempt_;  // null before the first document and between attempts

  Mutex mutex_;
  CondVar changed_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;  // the attempt's, for the watcher
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;                     // the attempt's reader has ended
  bool out_of_order_ ABSL_GUARDED_BY(mutex_) = false;
  bool silent_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Pending> pending_ ABSL_GUARDED_BY(mutex_);  // not acknowledged, in order
  size_t sent_ ABSL_GUARDED_BY(mutex_) = 0;              // so many of them, from the front, are sent in this attempt
  size_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;  // attempts since the last acknowledgement
  std::chrono::steady_clock::time_point last_sign_ ABSL_GUARDED_BY(mutex_);
  std::vector<IngestAcknowledgement> acknowledgements_ ABSL_GUARDED_BY(mutex_);
  std::thread watcher_;
};

}  // namespace retro::cli
