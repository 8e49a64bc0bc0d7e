#include "cli/ingest_ledger.h"

#include "cli/interrupt.h"

namespace retro::cli {
namespace {

constexpr size_t kSettleDocuments = 1000;
constexpr std::chrono::seconds kSettleInterval{1};

}  // namespace

void IngestLedger::Begin(IngestTag& tag) {
  tag.serial = next_serial_++;
  last_serial_[tag.part.document] = tag.serial;
}

void IngestLedger::OnStored(const IngestTag& tag) {
  if (tag.part.number <= 1) failed_document_.clear();
  done_.push_back({tag, tag.part.last && tag.part.document != failed_document_, !halted_[tag.file]});
}

void IngestLedger::OnFailed(const IngestTag& tag) {
  halted_[tag.file] = true;
  failed_document_ = tag.part.document;
  Forget(tag);
}

void IngestLedger::Settle(bool now) {
  const auto time = std::chrono::steady_clock::now();
  const bool due = done_.size() >= kSettleDocuments || time - last_settled_ >= kSettleInterval;
  if (done_.empty() || (!now && !due)) return;
  last_settled_ = time;
  const grpc::Status status = SweepDone();
  if (!status.ok()) TryNothingAgain();  // the time is taken once
  if (!status.ok() && sweep_status_.ok()) sweep_status_ = status;
  for (const Done& one : done_) {
    Forget(one.tag);
    if (!status.ok()) halted_[one.tag.file] = true;
    const bool is_file = one.tag.file < files_.size();
    if (status.ok() && one.note && journal_ != nullptr && is_file && one.tag.last_of_ordinal) {
      journal_->Record(files_[one.tag.file], one.tag.ordinal + 1);
    }
  }
  done_.clear();
}

bool IngestLedger::IsSuperseded(const IngestTag& tag) const {
  const auto last = last_serial_.find(tag.part.document);
  return last == last_serial_.end() || last->second != tag.serial;
}

void IngestLedger::Forget(const IngestTag& tag) {
  const auto last = last_serial_.find(tag.part.document);
  if (last != last_serial_.end() && last->second == tag.serial) last_serial_.erase(last);
}

grpc::Status IngestLedger::SweepDone() {
  const std::vector<StoredDocument> documents = WhatToSweep();
  grpc::Status status = sweep_.Sweep(documents);
  for (int failures = 1; failures <= retries_.max && IsPassing(status); ++failures) {
    if (SleepUnlessInterrupted(retries_.PauseAfter(failures, PauseAskedFor(status)))) break;
    status = sweep_.Sweep(documents);
  }
  return status;
}

std::vector<StoredDocument> IngestLedger::WhatToSweep() const {
  std::vector<StoredDocument> documents;
  for (const Done& one : done_) {
    if (one.whole && !IsSuperseded(one.tag)) documents.push_back({one.tag.part.document, one.tag.part.number});
  }
  return documents;
}

}  // namespace retro::cli
