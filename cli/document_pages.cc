#include "cli/document_pages.h"

#include "cli/connection.h"

namespace retro::cli {
namespace {

constexpr uint32_t kPageDocuments = 500;

}  // namespace

DocumentPages::DocumentPages(pb::RetrieverService::Stub& stub, const CommonOptions& options,
                             const std::optional<pb::Filter>& filter)
    : stub_(stub), options_(options) {
  request_.set_collection(options.collection);
  request_.set_page_size(kPageDocuments);
  if (filter.has_value()) *request_.mutable_filter() = *filter;
}

const pb::DocumentSummary* DocumentPages::Next() {
  while (at_ == page_.documents_size()) {  // pages may be empty before the last one
    if (last_page_ || !status_.ok()) return nullptr;
    page_.Clear();
    at_ = 0;
    Call call(options_.timeout_s);
    status_ = stub_.ListDocuments(call.context(), request_, &page_);
    if (!status_.ok()) return nullptr;
    request_.set_page_token(page_.next_page_token());
    last_page_ = page_.next_page_token().empty();
  }
  return &page_.documents(at_++);
}

}  // namespace retro::cli
