#include "retriever_service/index/faiss_library.h"

#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/FaissException.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>
#include <faiss/utils/distances.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {
namespace {

// Centroids are moved so often; FAISS's own choice for inverted files.
constexpr int kCentroidRounds = 10;

// ---------------------------------------------------------------- exceptions, threads, interruption

// What the calling thread's work is to be given up for; null: nothing.
thread_local const std::atomic<bool>* stop_wish = nullptr;

class StopWish final : public faiss::InterruptCallback {
 public:
  bool want_interrupt() override { return stop_wish != nullptr && stop_wish->load(std::memory_order_relaxed); }
};

// FAISS asks one object for the whole process; it has to be there before any thread searches.
const bool stop_wish_installed = [] {
  faiss::InterruptCallback::instance = std::make_unique<StopWish>();
  return true;
}();

// FAISS takes its threads from OpenMP's setting for the calling thread.
class ThreadsForScope {
 public:
  explicit ThreadsForScope(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadsForScope() { omp_set_num_threads(before_); }
  ThreadsForScope(const ThreadsForScope&) = delete;
  ThreadsForScope& operator=(const ThreadsForScope&) = delete;

 private:
  const int before_;
};

// The index as what it is; null for one of another kind.
std::unique_ptr<faiss::IndexIVF> AsInvertedFile(std::unique_ptr<faiss::Index> index) {
  if (dynamic_cast<faiss::IndexIVF*>(index.get()) == nullptr) return nullptr;
  return std::unique_ptr<faiss::IndexIVF>(static_cast<faiss::IndexIVF*>(index.release()));
}

absl::Status Guarded(std::string_view what, int threads, const std::function<void()>& work) {
  try {
    const ThreadsForScope scope(threads);
    work();
    return absl::OkStatus();
  } catch (const std::exception& e) {
    return absl::InternalError(StrCat("FAISS cannot ", what, ": ", e.what()));
  }
}

class BytesReader final : public faiss::IOReader {
 public:
  explicit BytesReader(std::string_view bytes) : bytes_(bytes) {}
  size_t operator()(void* to, size_t size, size_t items) override {
    if (size == 0) return items;
    const size_t whole = std::min(items, bytes_.size() / size);
    std::memcpy(to, bytes_.data(), whole * size);
    bytes_.remove_prefix(whole * size);
    return whole;
  }

 private:
  std::string_view bytes_;
};

class BytesWriter final : public faiss::IOWriter {
 public:
  size_t operator()(const void* from, size_t size, size_t items) override {
    bytes.append(static_cast<const char*>(from), size * items);
    return items;
  }
  std::string bytes;
};

// The same lists and centroids under another object, which has a number of probes of its own: 1.7.3's fast-scan takes
// no parameters for a single search.
template <typename Index>
void SearchLight(const Index& index, uint32_t lists_probed, int64_t n, const float* queries, int64_t candidates,
                 float* distances, int64_t* rows) {
  Index light = index;
  light.own_fields = false;
  light.own_invlists = false;
  light.nprobe = lists_probed;
  light.search(n, queries, candidates, distances, rows);
}

}  // namespace

// ---------------------------------------------------------------- distances

float SquaredDistance(std::span<const float> query, const float* vector) {
  return faiss::fvec_L2sqr(query.data(), vector, query.size());
}

void SquaredDistances(std::span<const float> query, const float* vectors, std::span<const uint32_t> rows,
                      float* distances) {
  for (size_t i = 0; i < rows.size(); ++i) {
    distances[i] = SquaredDistance(query, vectors + size_t{rows[i]} * query.size());
  }
}

// ---------------------------------------------------------------- lists

struct QuantisedLists::Faiss {
  std::unique_ptr<faiss::IndexIVF> index;
};

QuantisedLists::QuantisedLists(std::unique_ptr<Faiss> faiss) : faiss_(std::move(faiss)) {}
QuantisedLists::~QuantisedLists() = default;

absl::StatusOr<std::unique_ptr<QuantisedLists>> QuantisedLists::Train(const std::string& kind, int dimension,
                                                                      std::span<const float> sample, int threads,
                                                                      const std::atomic<bool>& stop) {
  stop_wish = stop_wish_installed ? &stop : nullptr;
  auto made = std::make_unique<Faiss>();
  const absl::Status status = Guarded(StrCat("train ", kind), threads, [&] {
    made->index = AsInvertedFile(std::unique_ptr<faiss::Index>(faiss::index_factory(dimension, kind.c_str())));
    faiss::IndexIVF* ivf = made->index.get();
    if (ivf == nullptr) throw faiss::FaissException("not an inverted file");
    ivf->cp.niter = kCentroidRounds;
    ivf->cp.min_points_per_centroid = 1;  // the caller chose the sample: no word about it on stderr
    if (auto* codes = dynamic_cast<faiss::IndexIVFPQFastScan*>(ivf)) codes->pq.cp.min_points_per_centroid = 1;
    ivf->train(static_cast<int64_t>(sample.size() / dimension), sample.data());
  });
  stop_wish = nullptr;
  if (stop) return absl::CancelledError("training was given up");
  RETRO_RETURN_IF_ERROR(status);
  return std::unique_ptr<QuantisedLists>(new QuantisedLists(std::move(made)));
}

absl::StatusOr<std::unique_ptr<QuantisedLists>> QuantisedLists::Parse(std::string_view bytes, int dimension,
                                                                      uint64_t rows) {
  auto made = std::make_unique<Faiss>();
  RETRO_RETURN_IF_ERROR(Guarded("read an index", 1, [&] {
    BytesReader reader(bytes);
    made->index = AsInvertedFile(std::unique_ptr<faiss::Index>(faiss::read_index(&reader)));
  }));
  if (made->index == nullptr || made->index->d != dimension || !made->index->is_trained ||
      static_cast<uint64_t>(made->index->ntotal) != rows) {
    return absl::DataLossError("the lists are not those of this segment");
  }
  return std::unique_ptr<QuantisedLists>(new QuantisedLists(std::move(made)));
}

absl::Status QuantisedLists::Add(std::span<const float> vectors, int threads) {
  return Guarded("add vectors", threads,
                 [&] { faiss_->index->add(static_cast<int64_t>(vectors.size()) / faiss_->index->d, vectors.data()); });
}

absl::StatusOr<std::string> QuantisedLists::Serialise() const {
  BytesWriter writer;
  RETRO_RETURN_IF_ERROR(Guarded("write an index", 1, [&] { faiss::write_index(faiss_->index.get(), &writer); }));
  return std::move(writer.bytes);
}

absl::Status QuantisedLists::Search(std::span<const float> queries, uint32_t lists_probed, uint32_t candidates,
                                    std::span<int64_t> rows) const {
  const faiss::IndexIVF& index = *faiss_->index;
  const int64_t n = static_cast<int64_t>(queries.size()) / index.d;
  std::vector<float> distances(rows.size());
  return Guarded("search", 1, [&] {
    if (const auto* codes = dynamic_cast<const faiss::IndexIVFPQFastScan*>(&index)) {
      SearchLight(*codes, lists_probed, n, queries.data(), candidates, distances.data(), rows.data());
    } else if (const auto* scalars = dynamic_cast<const faiss::IndexIVFScalarQuantizer*>(&index)) {
      SearchLight(*scalars, lists_probed, n, queries.data(), candidates, distances.data(), rows.data());
    } else {
      throw faiss::FaissException("an index of a kind that is not searched here");
    }
  });
}

uint32_t QuantisedLists::lists() const { return static_cast<uint32_t>(faiss_->index->nlist); }

uint64_t QuantisedLists::memory_bytes() const {
  const faiss::IndexIVF& index = *faiss_->index;
  constexpr size_t kBlock = 32;  // fast-scan pads each list to whole blocks
  uint64_t bytes = index.nlist * index.d * sizeof(float);
  for (size_t list = 0; list < index.nlist; ++list) {
    const size_t rows = index.invlists->list_size(list);
    bytes += (rows + kBlock - 1) / kBlock * kBlock * index.code_size + rows * sizeof(int64_t);
  }
  return bytes;
}

}  // namespace retro
