// The Ingest call with a bounded window, which survives broken connections and documents that the server cannot take
// just now.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "cli/document_reader.h"
#include "cli/interrupt.h"
#include "cli/protocol.h"
#include "cli/retries.h"
#include "common/base/sync.h"

namespace retro::cli {

struct IngestOptions {
  std::string collection;
  // Documents and bytes that are sent and not yet acknowledged; one document alone may exceed the bytes.
  size_t window_documents_max = 256;
  size_t window_bytes_max = 32 << 20;
  // Of a broken stream, without any acknowledgement between: what was not acknowledged is sent again, and the server
  // answers UNCHANGED to what it has already. And of each document that the server could not take (a shard is away, a
  // queue is full), while the others go on; not if a later document of the same id was sent, as that one must win.
  Retries retries;
  // Longest time without any acknowledgement while one is due; and a second more for so many bytes that are due, which
  // the slowest embedder worth waiting for manages: acknowledgements come in order, and the server works on many long
  // documents at once. A server that is gone is noticed by the connection itself.
  std::chrono::milliseconds silence_max{300'000};
  size_t slowest_bytes_per_s = 2048;
};

// What the sender remembers of a document until it is acknowledged.
struct IngestTag {
  size_t file = 0;       // the sender's number for the file
  uint64_t ordinal = 0;  // see Reading
  bool last_of_ordinal = true;
  DocumentPart part;
  uint64_t serial = 0;  // the sender's number for the document
};

struct IngestAcknowledgement {
  IngestTag tag;
  pb::DocumentResult result;
  int retries = 0;  // so many times it was sent again because the server could not take it
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
  using Time = std::chrono::steady_clock::time_point;
  struct Pending {
    std::shared_ptr<const pb::IngestRequest> request;  // null once its result is final
    IngestAcknowledgement acknowledgement;             // the last one, if any
    size_t bytes = 0;
  };
  // What the sender waits for.
  enum class Goal { kRoom, kAllSent, kAllAcknowledged };
  // What it is to do next.
  enum class Step { kDone, kOpen, kSend, kRecover };
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
  // Sends whatever is due until `goal` is reached (kRoom: for `bytes` more), over as many attempts as it takes.
  grpc::Status Drive(Goal goal, size_t bytes = 0);
  // Waits until there is something to do. With kSend, `request` is counted as sent.
  Step NextStep(Goal goal, size_t bytes, std::shared_ptr<const pb::IngestRequest>* request);
  bool Reached(Goal goal, size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Delayed documents whose time has come go to the queue.
  void QueueDue(Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadLoop(Stream& stream);
  // False if it is not for the oldest document that was sent.
  bool Acknowledge(pb::IngestResponse response);
  // No later document of the same id was sent.
  bool IsLastOfItsId(const Pending& pending) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The document's last acknowledgement is its final one.
  void Settle(Pending& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::chrono::milliseconds SilenceMax() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
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
  // Not acknowledged for good, or behind one that is not, in the order of sending. The others point into it.
  std::deque<Pending> pending_ ABSL_GUARDED_BY(mutex_);
  std::deque<Pending*> queue_ ABSL_GUARDED_BY(mutex_);             // to be sent now
  std::deque<Pending*> in_flight_ ABSL_GUARDED_BY(mutex_);         // sent in this attempt, in that order
  std::multimap<Time, Pending*> delayed_ ABSL_GUARDED_BY(mutex_);  // to be sent again at that time
  std::unordered_map<std::string, uint64_t> last_of_id_
      ABSL_GUARDED_BY(mutex_);  // sequence of its last document that is not settled
  size_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;  // attempts since the last acknowledgement
  Time last_sign_ ABSL_GUARDED_BY(mutex_);
  std::vector<IngestAcknowledgement> acknowledgements_ ABSL_GUARDED_BY(mutex_);
  std::thread watcher_;
};

}  // namespace retro::cli
