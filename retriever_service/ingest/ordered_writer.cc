#include "retriever_service/ingest/ordered_writer.h"

#include <utility>

#include "common/base/error.h"

namespace retro {
namespace {

constexpr std::chrono::milliseconds kRetryAfter{500};

}  // namespace

std::shared_ptr<OrderedWriter> OrderedWriter::Create(DocumentWriter& writer, WorkerPool& pool) {
  return std::shared_ptr<OrderedWriter>(new OrderedWriter(writer, pool));
}

std::string OrderedWriter::Key(const Item& item) { return item.collection + '\0' + item.document_id; }

void OrderedWriter::Submit(std::string collection, pb::DocumentWrite write, std::string field,
                           const CallContext& context, Done done) {
  auto item = std::make_shared<Item>();
  item->collection = std::move(collection);
  item->document_id = write.document().id();
  item->write = std::move(write);
  item->field = std::move(field);
  item->context = &context;
  item->done = std::move(done);
  {
    MutexLock lock(mutex_);
    line_.push_back(item);
    auto& same_id = by_id_[Key(*item)];
    same_id.push_back(item);
    if (same_id.size() > 1) return;  // starts when the one before it has finished
  }
  Start(item);
}

void OrderedWriter::Refuse(const absl::Status& status, Done done) {
  auto item = std::make_shared<Item>();
  item->done = std::move(done);
  item->result = FailedWrite("", status);
  item->finished = true;
  {
    MutexLock lock(mutex_);
    line_.push_back(std::move(item));
  }
  Report();
}

void OrderedWriter::Start(const ItemPtr& item) {
  const auto write = [self = shared_from_this(), item] {
    item->result = self->writer_.Write(item->collection, std::move(item->write), item->field, *item->context);
    self->Finish(item);
  };
  const bool taken = pool_.Submit(write, item->context->key());
  if (taken) return;
  item->result = FailedWrite(item->document_id, QueueFullError("the queue of documents", kRetryAfter));
  Finish(item);
}

void OrderedWriter::Finish(const ItemPtr& item) {
  ItemPtr next;
  {
    MutexLock lock(mutex_);
    item->finished = true;
    const auto same_id = by_id_.find(Key(*item));
    same_id->second.pop_front();
    if (same_id->second.empty()) {
      by_id_.erase(same_id);
    } else {
      next = same_id->second.front();
    }
  }
  Report();
  if (next != nullptr) Start(next);
}

void OrderedWriter::Report() {
  while (true) {
    ItemPtr head;
    {
      MutexLock lock(mutex_);
      if (reporting_ || line_.empty() || !line_.front()->finished) return;
      reporting_ = true;
      head = std::move(line_.front());
      line_.pop_front();
    }
    head->done(head->result);
    MutexLock lock(mutex_);
    reporting_ = false;
  }
}

}  // namespace retro
