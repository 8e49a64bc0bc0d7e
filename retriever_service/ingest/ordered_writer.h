// Writes the documents of one stream (or of one call) several at a time, and reports them in the order in which they
// came. Documents with equal ids are written one after another, so that the later one wins.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "common/base/sync.h"
#include "common/base/worker_pool.h"
#include "common/document/protos.h"
#include "retriever_service/ingest/document_writer.h"

namespace retro {

class OrderedWriter : public std::enable_shared_from_this<OrderedWriter> {
 public:
  using Done = std::function<void(const WriteResult&)>;

  // Both must outlive all documents.
  static std::shared_ptr<OrderedWriter> Create(DocumentWriter& writer, WorkerPool& pool);

  // `done` is called once, on a worker or the caller's thread, after the `done` of every earlier document. Calls of
  // `done` never overlap. `context` must stay valid until then. `field` is as in DocumentWriter.
  void Submit(std::string collection, pb::DocumentWrite write, std::string field, const CallContext& context,
              Done done);

  // As Submit, for a document that is refused before it could be written: reported in its turn.
  void Refuse(const absl::Status& status, Done done);

 private:
  struct Item {
    std::string collection;
    std::string document_id;
    pb::DocumentWrite write;
    std::string field;
    const CallContext* context;
    Done done;
    WriteResult result;
    bool finished = false;
  };
  using ItemPtr = std::shared_ptr<Item>;

  OrderedWriter(DocumentWriter& writer, WorkerPool& pool) : writer_(writer), pool_(pool) {}
  void Start(const ItemPtr& item);
  void Finish(const ItemPtr& item);
  // Reports what is finished at the head of the line, unless another thread is at it.
  void Report();
  static std::string Key(const Item& item);

  DocumentWriter& writer_;
  WorkerPool& pool_;
  Mutex mutex_;
  std::deque<ItemPtr> line_ ABSL_GUARDED_BY(mutex_);  // all that are not reported, in order
  std::unordered_map<std::string, std::deque<ItemPtr>> by_id_
      ABSL_GUARDED_BY(mutex_);  // front runs, the others wait for it
  bool reporting_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace retro
