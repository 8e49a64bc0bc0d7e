#include "retriever_service/index/faiss_library.h"

#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFPQFastScan.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/impl/AuxIndexStructures.h>
#include <faiss/impl/FaissException.h>
#include <faiss/impl/io.h>
#include <faiss/impl/pq4_fast_scan.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>
#include <faiss/invlists/BlockInvertedLists.h>
#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/document/half.h"
#include "retriever_service/index/centroids.h"
#include "retriever_service/index/code_scan.h"

namespace retro {
namespace {

// Centroids, of lists and of codes, are moved so often; FAISS's own choice for lists.
constexpr int kCentroidRounds = 10;
constexpr size_t kCodesSample = 4096;  // FAISS learns from no more
constexpr size_t kRowsAtOnce = 4096;   // made single precision

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

// FAISS, and the matrix products that it has others do, take their threads from OpenMP's setting for the calling
// thread.
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
    if (whole == 0) return 0;  // FAISS asks for none into no memory, which memcpy may not be given
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

// ---------------------------------------------------------------- vectors

// [vectors.size(), dimension]
std::vector<float> Decoded(std::span<const std::string_view> vectors, int dimension) {
  std::vector<float> decoded(vectors.size() * dimension);
  for (size_t i = 0; i < vectors.size(); ++i) {
    FromHalf(vectors[i], std::span(decoded).subspan(i * dimension, dimension));
  }
  return decoded;
}

// How FAISS's clustering reads vectors that stay where they are: the "code" of one is where it lies.
class VectorsWhereTheyLie final : public faiss::Index {
 public:
  explicit VectorsWhereTheyLie(int dimension) : faiss::Index(dimension) {}

  size_t sa_code_size() const override { return sizeof(std::string_view); }
  void sa_decode(idx_t n, const uint8_t* places, float* x) const override {
    for (idx_t i = 0; i < n; ++i, places += sizeof(std::string_view), x += d) {
      std::string_view vector;
      std::memcpy(&vector, places, sizeof(std::string_view));
      FromHalf(vector, {x, static_cast<size_t>(d)});
    }
  }

  void add(idx_t, const float*) override { throw faiss::FaissException("holds nothing"); }
  void search(idx_t, const float*, idx_t, float*, idx_t*, const faiss::SearchParameters*) const override {
    throw faiss::FaissException("holds nothing");
  }
  void reset() override {}
};

// Evenly spread.
std::vector<std::string_view> SomeOf(std::span<const std::string_view> vectors, size_t count) {
  std::vector<std::string_view> some;
  some.reserve(std::min(count, vectors.size()));
  for (size_t i = 0; i < std::min(count, vectors.size()); ++i) {
    some.push_back(vectors[i * vectors.size() / std::min(count, vectors.size())]);
  }
  return some;
}

// FAISS's own way, but for the sample, which stays where it is.
void TrainCentroids(std::span<const std::string_view> sample, faiss::IndexIVF& index) {
  faiss::ClusteringParameters parameters;
  parameters.niter = kCentroidRounds;
  parameters.min_points_per_centroid = 1;  // the caller chose the sample: no word about it on stderr
  parameters.decode_block_size = kRowsAtOnce;
  faiss::Clustering clustering(index.d, static_cast<int>(index.nlist), parameters);
  faiss::IndexFlatL2 nearest(index.d);
  const VectorsWhereTheyLie vectors(index.d);
  clustering.train_encoded(static_cast<int64_t>(sample.size()), reinterpret_cast<const uint8_t*>(sample.data()),
                           &vectors, nearest);
  index.quantizer->add(static_cast<int64_t>(index.nlist), clustering.centroids.data());
}

// FAISS 1.7.3 makes a table for every list (12 KB of each with 192 codes) that only codes of residuals look into. Ours
// are of whole vectors: for them it would be dead weight in memory.
void DropUnusedTable(faiss::IndexIVF& index) {
  auto* codes = dynamic_cast<faiss::IndexIVFPQFastScan*>(&index);
  if (codes != nullptr && !codes->by_residual) codes->precomputed_table.resize(1);  // 0 has no bytes to copy from
}

// Whether it is of a kind that Search knows, and fits itself. Codes of 4 bits are compared by CodeScan, not by FAISS:
// they have to be of whole vectors, and laid out as CodeList says.
bool IsOfAKindWeSearch(const faiss::IndexIVF& index) {
  if (index.nlist == 0 || index.quantizer == nullptr || index.quantizer->d != index.d ||
      index.quantizer->ntotal != static_cast<int64_t>(index.nlist)) {
    return false;
  }
  const auto* codes = dynamic_cast<const faiss::IndexIVFPQFastScan*>(&index);
  if (codes == nullptr) return dynamic_cast<const faiss::IndexIVFScalarQuantizer*>(&index) != nullptr;
  const faiss::ProductQuantizer& book = codes->pq;
  const auto dimension = static_cast<size_t>(index.d);
  return !codes->by_residual && codes->metric_type == faiss::METRIC_L2 && codes->bbs == kRowsABlock &&
         book.nbits == 4 && book.d == dimension && book.M * book.dsub == dimension && codes->M == book.M &&
         codes->M2 == (book.M + 1) / 2 * 2 && book.centroids.size() == dimension * kCodeValues;
}

// ---------------------------------------------------------------- lists that take no more

// Memory straight from the kernel, in large pages where it has some: lists lie all over it, and it goes back whole.
class Pages {
 public:
  explicit Pages(size_t bytes) : bytes_(std::max<size_t>(1, bytes)) {
    void* begin = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (begin == MAP_FAILED) throw std::bad_alloc();
    begin_ = static_cast<uint8_t*>(begin);
    madvise(begin_, bytes_, MADV_HUGEPAGE);  // advice: small pages do too
  }
  ~Pages() { munmap(begin_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  uint8_t* begin() const { return begin_; }

 private:
  const size_t bytes_;
  uint8_t* begin_;
};

// How the codes of a list are laid out: fast-scan has them in blocks of 32 rows.
struct CodeLayout {
  size_t rows_a_block;
  size_t block_bytes;
  size_t BytesOf(size_t rows) const { return (rows + rows_a_block - 1) / rows_a_block * block_bytes; }
};

CodeLayout LayoutOf(const faiss::IndexIVF& index) {
  const auto* codes = dynamic_cast<const faiss::IndexIVFPQFastScan*>(&index);
  if (codes == nullptr) return {1, index.code_size};
  const auto rows = static_cast<size_t>(codes->bbs);
  return {rows, rows * codes->M2 / 2};
}

template <typename Number>
std::string_view BytesOf(std::span<const Number> numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes()};
}

// What FAISS writes of an index: centroids, code book and so on.
std::string BytesWithoutLists(faiss::IndexIVF& index) {
  faiss::ArrayInvertedLists none(index.nlist, index.code_size);
  faiss::InvertedLists* const lists = std::exchange(index.invlists, &none);
  BytesWriter writer;
  try {
    faiss::write_index(&index, &writer);
  } catch (...) {
    index.invlists = lists;
    throw;
  }
  index.invlists = lists;
  return std::move(writer.bytes);
}

// FAISS's own lists, with the room that they have left to grow.
uint64_t BytesOfGrowing(const faiss::IndexIVF& index) {
  uint64_t bytes = index.nlist * index.d * sizeof(float);
  if (const auto* blocks = dynamic_cast<const faiss::BlockInvertedLists*>(index.invlists)) {
    for (const auto& codes : blocks->codes) bytes += codes.tab.nbytes();
    for (const auto& ids : blocks->ids) bytes += ids.capacity() * sizeof(ids[0]);
  } else if (const auto* lists = dynamic_cast<const faiss::ArrayInvertedLists*>(index.invlists)) {
    for (const auto& codes : lists->codes) bytes += codes.capacity();
    for (const auto& ids : lists->ids) bytes += ids.capacity() * sizeof(ids[0]);
  }
  return bytes;
}

// All lists end to end. FAISS's own leave up to half of what they take empty, to grow, and have 8 bytes a row's number;
// here these are made when a list is looked into.
class PackedLists final : public faiss::ReadOnlyInvertedLists {
 public:
  PackedLists(const CodeLayout& layout, std::span<const uint32_t> sizes, std::vector<uint32_t> rows,
              std::string_view codes)
      : ReadOnlyInvertedLists(sizes.size(), layout.rows_a_block > 1 ? INVALID_CODE_SIZE : layout.block_bytes),
        memory_bytes_(codes.size() + rows.size() * sizeof(uint32_t) + sizes.size() * sizeof(Place)),
        codes_(codes.size()),
        rows_(std::move(rows)) {
    std::memcpy(codes_.begin(), codes.data(), codes.size());
    lists_.reserve(sizes.size());
    for (Place place; const uint32_t size : sizes) {
      place.rows = size;
      lists_.push_back(place);
      place.first_row += size;
      place.first_code += layout.BytesOf(size);
    }
  }

  size_t list_size(size_t list) const override { return lists_[list].rows; }
  const uint8_t* get_codes(size_t list) const override { return codes_.begin() + lists_[list].first_code; }
  const idx_t* get_ids(size_t list) const override {
    const Place& place = lists_[list];
    auto ids = std::make_unique_for_overwrite<idx_t[]>(place.rows);
    std::copy_n(rows_.data() + place.first_row, place.rows, ids.get());
    return ids.release();
  }
  void release_ids(size_t, const idx_t* ids) const override { delete[] ids; }
  size_t memory_bytes() const { return memory_bytes_; }

  CodeList At(size_t list) const {
    const Place& place = lists_[list];
    return {codes_.begin() + place.first_code, place.rows, place.first_row};
  }
  int64_t RowAt(size_t place) const { return rows_[place]; }  // of CodeList's

 private:
  struct Place {
    uint32_t rows = 0;
    uint32_t first_row = 0;
    size_t first_code = 0;
  };

  const size_t memory_bytes_;
  const Pages codes_;
  const std::vector<uint32_t> rows_;
  std::vector<Place> lists_;
};

// Takes numbers and pieces off the front of bytes.
class Cutter {
 public:
  explicit Cutter(std::string_view bytes) : bytes_(bytes) {}

  // Empty if there are not so many.
  std::string_view Take(uint64_t size) {
    if (size > bytes_.size()) {
      whole_ = false;
      return {};
    }
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }
  uint64_t TakeNumber() {
    uint64_t number = 0;
    const std::string_view taken = Take(sizeof number);
    std::memcpy(&number, taken.data(), taken.size());
    return number;
  }
  std::vector<uint32_t> TakeNumbers(uint64_t count) {
    const std::string_view taken = Take(count * sizeof(uint32_t));
    std::vector<uint32_t> numbers(taken.size() / sizeof(uint32_t));
    std::memcpy(numbers.data(), taken.data(), taken.size());
    return numbers;
  }
  bool whole() const { return whole_; }
  bool empty() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool whole_ = true;
};

// In blocks, as CodeList has them.
std::vector<CodeQuad> CodesOf(const faiss::IndexIVFPQFastScan& index, std::span<const float> vectors) {
  const size_t count = vectors.size() / index.d;
  std::vector<uint8_t> codes(count * index.pq.code_size);
  index.pq.compute_codes(vectors.data(), codes.data(), count);
  const CodeLayout layout = LayoutOf(index);
  std::vector<CodeQuad> blocks((layout.BytesOf(count) + sizeof(CodeQuad) - 1) / sizeof(CodeQuad));
  faiss::pq4_pack_codes(codes.data(), count, index.M, layout.BytesOf(count) / layout.block_bytes * kRowsABlock,
                        kRowsABlock, index.M2, blocks.data()->bytes.data());
  return blocks;
}

// That a query looks into a list, as a number that puts them into the order of the lists.
using Visit = uint64_t;
Visit VisitOf(uint64_t list, uint32_t query) { return list << 32 | query; }
uint32_t ListOf(Visit visit) { return visit >> 32; }
uint32_t QueryOf(Visit visit) { return static_cast<uint32_t>(visit); }

}  // namespace

// ---------------------------------------------------------------- lists

struct QuantisedLists::Faiss {
  std::unique_ptr<faiss::IndexIVF> index;
  // Of what was read.
  const PackedLists* lists = nullptr;  // the index's own
  std::optional<Centroids> centroids;  // in place of the index's, where rows have codes and these are no graph
  uint64_t memory_bytes = 0;

  void TakeOver(std::unique_ptr<PackedLists> packed);
  void NearestLists(std::span<const float> queries, const CodeTables& tables, uint32_t most,
                    std::span<int64_t> nearest) const;
  void SearchByCodes(const faiss::IndexIVFPQFastScan& codes, std::span<const float> queries, uint32_t lists_probed,
                     uint32_t candidates, std::span<int64_t> rows) const;
};

QuantisedLists::QuantisedLists(std::unique_ptr<Faiss> faiss) : faiss_(std::move(faiss)) {}
QuantisedLists::~QuantisedLists() = default;

absl::StatusOr<std::unique_ptr<QuantisedLists>> QuantisedLists::Train(const std::string& kind, int dimension,
                                                                      std::span<const std::string_view> sample,
                                                                      int threads, const std::atomic<bool>& stop) {
  stop_wish = stop_wish_installed ? &stop : nullptr;
  auto made = std::make_unique<Faiss>();
  const absl::Status status = Guarded(StrCat("train ", kind), threads, [&] {
    made->index = AsInvertedFile(std::unique_ptr<faiss::Index>(faiss::index_factory(dimension, kind.c_str())));
    faiss::IndexIVF* ivf = made->index.get();
    if (ivf == nullptr) throw faiss::FaissException("not an inverted file");
    TrainCentroids(sample, *ivf);
    if (auto* codes = dynamic_cast<faiss::IndexIVFPQFastScan*>(ivf)) {
      codes->pq.cp.niter = kCentroidRounds;
      codes->pq.cp.min_points_per_centroid = 1;
    }
    const std::vector<float> some = Decoded(SomeOf(sample, kCodesSample), dimension);
    ivf->train(static_cast<int64_t>(some.size() / dimension), some.data());
    DropUnusedTable(*ivf);
  });
  stop_wish = nullptr;
  if (stop) return absl::CancelledError("training was given up");
  RETRO_RETURN_IF_ERROR(status);
  return std::unique_ptr<QuantisedLists>(new QuantisedLists(std::move(made)));
}

absl::Status QuantisedLists::Add(std::span<const std::string_view> vectors, int threads) {
  return Guarded("add vectors", threads, [&] {
    for (size_t begin = 0; begin < vectors.size(); begin += kRowsAtOnce) {
      const auto some = vectors.subspan(begin, std::min(kRowsAtOnce, vectors.size() - begin));
      faiss_->index->add(static_cast<int64_t>(some.size()), Decoded(some, faiss_->index->d).data());
    }
  });
}

// ---------------------------------------------------------------- bytes: see FORMAT.md

absl::Status QuantisedLists::Write(const Append& append) {
  faiss::IndexIVF& index = *faiss_->index;
  std::string trained;
  RETRO_RETURN_IF_ERROR(Guarded("write an index", 1, [&] { trained = BytesWithoutLists(index); }));
  const uint64_t size = trained.size();
  RETRO_RETURN_IF_ERROR(append(BytesOf(std::span<const uint64_t>(&size, 1))));
  RETRO_RETURN_IF_ERROR(append(trained));
  const faiss::InvertedLists& lists = *index.invlists;
  std::vector<uint32_t> numbers;
  numbers.reserve(lists.nlist);
  for (size_t list = 0; list < lists.nlist; ++list) numbers.push_back(static_cast<uint32_t>(lists.list_size(list)));
  RETRO_RETURN_IF_ERROR(append(BytesOf(std::span<const uint32_t>(numbers))));
  for (size_t list = 0; list < lists.nlist; ++list) {
    faiss::InvertedLists::ScopedIds ids(&lists, list);
    numbers.assign(ids.get(), ids.get() + lists.list_size(list));
    RETRO_RETURN_IF_ERROR(append(BytesOf(std::span<const uint32_t>(numbers))));
  }
  const CodeLayout layout = LayoutOf(index);
  for (size_t list = 0; list < lists.nlist; ++list) {
    faiss::InvertedLists::ScopedCodes codes(&lists, list);
    const size_t bytes = layout.BytesOf(lists.list_size(list));
    RETRO_RETURN_IF_ERROR(append(std::string_view(reinterpret_cast<const char*>(codes.get()), bytes)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<QuantisedLists>> QuantisedLists::Parse(std::string_view bytes, int dimension,
                                                                      uint64_t rows) {
  absl::Status damage = absl::DataLossError("the lists are not those of this segment");
  Cutter cutter(bytes);
  const std::string_view trained = cutter.Take(cutter.TakeNumber());
  auto made = std::make_unique<Faiss>();
  RETRO_RETURN_IF_ERROR(Guarded("read an index", 1, [&] {
    BytesReader reader(trained);
    made->index = AsInvertedFile(std::unique_ptr<faiss::Index>(faiss::read_index(&reader)));
    if (made->index != nullptr) DropUnusedTable(*made->index);
  }));
  faiss::IndexIVF* index = made->index.get();
  if (index == nullptr || index->d != dimension || !index->is_trained || index->ntotal != static_cast<int64_t>(rows) ||
      !IsOfAKindWeSearch(*index) || rows > std::numeric_limits<uint32_t>::max()) {
    return damage;
  }
  const CodeLayout layout = LayoutOf(*index);
  const std::vector<uint32_t> sizes = cutter.TakeNumbers(index->nlist);
  std::vector<uint32_t> numbers = cutter.TakeNumbers(rows);
  uint64_t listed = 0, code_bytes = 0;
  for (const uint32_t size : sizes) {
    listed += size;
    code_bytes += layout.BytesOf(size);
  }
  const std::string_view codes = cutter.Take(code_bytes);
  const bool all_sizes = sizes.size() == index->nlist;
  const bool in_range = std::all_of(numbers.begin(), numbers.end(), [&](uint32_t row) { return row < rows; });
  if (!cutter.whole() || !cutter.empty() || !all_sizes || listed != rows || !in_range) return damage;
  RETRO_RETURN_IF_ERROR(Guarded("take lists", 1, [&] {
    made->TakeOver(std::make_unique<PackedLists>(layout, sizes, std::move(numbers), codes));
  }));
  return std::unique_ptr<QuantisedLists>(new QuantisedLists(std::move(made)));
}

// ---------------------------------------------------------------- searching

void QuantisedLists::Faiss::TakeOver(std::unique_ptr<PackedLists> packed) {
  lists = packed.get();
  index->replace_invlists(packed.release(), /*own=*/true);
  auto* all = dynamic_cast<faiss::IndexFlat*>(index->quantizer);
  const auto* codes = dynamic_cast<const faiss::IndexIVFPQFastScan*>(index.get());
  if (all == nullptr || codes == nullptr) {
    memory_bytes = lists->memory_bytes() + index->nlist * index->d * sizeof(float);
    if (const auto* graph = dynamic_cast<const faiss::IndexHNSW*>(index->quantizer)) {
      memory_bytes += graph->hnsw.offsets.back() * sizeof(faiss::HNSW::storage_idx_t);  // of links
    }
    return;
  }
  const std::span<const float> vectors(all->get_xb(), index->nlist * index->d);
  centroids.emplace(vectors, index->d, CodesOf(*codes, vectors));
  all->reset();
  all->codes.shrink_to_fit();
  memory_bytes = lists->memory_bytes() + centroids->memory_bytes();
}

void QuantisedLists::Faiss::NearestLists(std::span<const float> queries, const CodeTables& tables, uint32_t most,
                                         std::span<int64_t> nearest) const {
  if (centroids.has_value()) return centroids->FindNearest(queries, tables, most, nearest);
  std::vector<float> distances(nearest.size());
  index->quantizer->search(static_cast<int64_t>(queries.size()) / index->d, queries.data(), most, distances.data(),
                           nearest.data());
}

// Lists in their order, so that what is read of one serves all queries that look into it.
void QuantisedLists::Faiss::SearchByCodes(const faiss::IndexIVFPQFastScan& codes, std::span<const float> queries,
                                          uint32_t lists_probed, uint32_t candidates, std::span<int64_t> rows) const {
  const size_t n = queries.size() / codes.d;
  std::vector<float> entries(n * codes.M * kCodeValues);
  codes.pq.compute_distance_tables(n, queries.data(), entries.data());
  const CodeTables tables(codes.M, entries);
  std::vector<int64_t> nearest(n * lists_probed);
  NearestLists(queries, tables, lists_probed, nearest);
  std::vector<Visit> visits;
  visits.reserve(nearest.size());
  for (size_t i = 0; i < nearest.size(); ++i) {
    if (nearest[i] < 0 || lists->list_size(nearest[i]) == 0) continue;
    visits.push_back(VisitOf(nearest[i], i / lists_probed));
  }
  std::sort(visits.begin(), visits.end());

  CodeScan scan(tables, candidates);
  std::vector<uint32_t> together;
  for (size_t begin = 0, end = 0; begin < visits.size(); begin = end) {
    together.clear();
    const uint32_t list = ListOf(visits[begin]);
    for (; end < visits.size() && ListOf(visits[end]) == list; ++end) together.push_back(QueryOf(visits[end]));
    scan.Scan(lists->At(list), together, lists->At(end < visits.size() ? ListOf(visits[end]) : list));
  }
  for (size_t query = 0; query < n; ++query) {
    const auto found = rows.subspan(query * candidates, candidates);
    scan.Take(query, found);
    for (int64_t& row : found) row = row < 0 ? row : lists->RowAt(row);
  }
}

absl::Status QuantisedLists::Search(std::span<const float> queries, uint32_t lists_probed, uint32_t candidates,
                                    std::span<int64_t> rows) const {
  if (candidates == 0) return absl::OkStatus();
  return Guarded("search", 1, [&] {
    if (const auto* codes = dynamic_cast<const faiss::IndexIVFPQFastScan*>(faiss_->index.get())) {
      return faiss_->SearchByCodes(*codes, queries, lists_probed, candidates, rows);
    }
    faiss::SearchParametersIVF parameters;
    parameters.nprobe = lists_probed;
    std::vector<float> distances(rows.size());
    faiss_->index->search(static_cast<int64_t>(queries.size()) / faiss_->index->d, queries.data(), candidates,
                          distances.data(), rows.data(), &parameters);
  });
}

uint32_t QuantisedLists::lists() const { return static_cast<uint32_t>(faiss_->index->nlist); }

uint64_t QuantisedLists::memory_bytes() const {
  return faiss_->memory_bytes > 0 ? faiss_->memory_bytes : BytesOfGrowing(*faiss_->index);
}

}  // namespace retro
