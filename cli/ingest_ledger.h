// What an ingest is done with: documents whose last part is stored are swept (see PartSweep), then noted in the
// journal.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "cli/file_walk.h"
#include "cli/ingest_journal.h"
#include "cli/ingest_stream.h"
#include "cli/part_sweep.h"
#include "cli/retries.h"

namespace retro::cli {

// Not thread-safe.
class IngestLedger {
 public:
  // All must outlive it. `journal` may be null. Tags name files by their place in `files`; one past them is standard
  // input.
  IngestLedger(pb::RetrieverService::Stub& stub, const CommonOptions& options, const Retries& retries,
               const std::vector<InputFile>& files, IngestJournal* journal)
      : sweep_(stub, options), retries_(retries), files_(files), journal_(journal), halted_(files.size() + 1, false) {}

  // Before the document is sent: gives its tag a serial number.
  void Begin(IngestTag& tag);
  // After its final acknowledgement, in the order of sending.
  void OnStored(const IngestTag& tag);
  // The journal stops before it, so that the next run tries again.
  void OnFailed(const IngestTag& tag);

  // Sweeps and notes what was stored since the last time, if `now` or if that is due. What the server cannot sweep just
  // now is tried again after pauses, in which nothing is sent; what it could not then is not noted: the next run sends
  // it again.
  void Settle(bool now);

  // From now on nothing is tried again, as the server is away for longer.
  void TryNothingAgain() { retries_.max = 0; }

  // The first error of a sweep.
  const grpc::Status& sweep_status() const { return sweep_status_; }
  uint64_t deleted_count() const { return sweep_.deleted_count(); }

 private:
  struct Done {
    IngestTag tag;
    bool whole = false;  // all of the document is stored
    bool note = false;   // nothing before it in its file failed
  };
  // True if the document was sent again since: what of it is old will be known then.
  bool IsSuperseded(const IngestTag& tag) const;
  void Forget(const IngestTag& tag);
  grpc::Status SweepDone();
  std::vector<StoredDocument> WhatToSweep() const;

  PartSweep sweep_;
  Retries retries_;
  const std::vector<InputFile>& files_;
  IngestJournal* const journal_;
  grpc::Status sweep_status_;
  std::vector<bool> halted_;                               // by file: something of it failed
  std::vector<Done> done_;                                 // stored and not settled
  std::string failed_document_;                            // the last one of which a part failed
  std::unordered_map<std::string, uint64_t> last_serial_;  // by document, of what is not settled
  uint64_t next_serial_ = 1;
  std::chrono::steady_clock::time_point last_settled_ = std::chrono::steady_clock::now();
};

}  // namespace retro::cli
