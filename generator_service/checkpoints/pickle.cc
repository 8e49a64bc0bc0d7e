#include "generator_service/checkpoints/pickle.h"

#include <bit>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "common/base/status_macros.h"
#include "common/base/strings.h"

namespace retro {

const PickleValue* PickleValue::Find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name->kind == Kind::kText && name->text == key) return value;
  }
  return nullptr;
}

// The pickle machine: a stack of values, marks on it, and a memo.
class PickleReader {
 public:
  explicit PickleReader(std::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<Pickle> Run() {
    if (bytes_.size() > kPickleBytesMax) return Malformed(StrCat("it has ", bytes_.size(), " bytes"));
    while (pickle_.root_ == nullptr) {
      start_ = at_;
      uint8_t opcode = 0;
      RETRO_RETURN_IF_ERROR(Take(opcode));
      RETRO_RETURN_IF_ERROR(Step(static_cast<char>(opcode)));
      if (pickle_.values_.size() > kPickleValuesMax)
        return Malformed(StrCat("more than ", kPickleValuesMax, " values"));
    }
    return std::move(pickle_);
  }

 private:
  using Kind = PickleValue::Kind;

  absl::Status Malformed(std::string_view why) const {
    return absl::InvalidArgumentError(StrCat("is not a sound pickle: ", why, " at byte ", start_));
  }

  // ---- bytes

  template <typename T>
  absl::Status Take(T& value) {
    if (bytes_.size() - at_ < sizeof value) return Malformed("it is cut");
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return absl::OkStatus();
  }

  absl::Status TakeBytes(uint64_t size, std::string_view& taken) {
    if (bytes_.size() - at_ < size) return Malformed("it is cut");
    taken = bytes_.substr(at_, size);
    at_ += size;
    return absl::OkStatus();
  }

  absl::Status TakeLine(std::string_view& line) {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) return Malformed("it is cut");
    line = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return absl::OkStatus();
  }

  // ---- stack

  PickleValue& Push(Kind kind) {
    PickleValue& value = pickle_.values_.emplace_back();
    value.kind = kind;
    stack_.push_back(&value);
    return value;
  }

  // The values above the last mark may be taken, those below may not.
  size_t Floor() const { return marks_.empty() ? 0 : marks_.back(); }

  absl::Status Need(size_t count) const {
    return stack_.size() - Floor() < count ? Malformed("its stack is empty") : absl::OkStatus();
  }

  absl::Status Pop(PickleValue*& value) {
    RETRO_RETURN_IF_ERROR(Need(1));
    value = stack_.back();
    stack_.pop_back();
    return absl::OkStatus();
  }

  // What lies above the last mark, which goes.
  absl::Status PopMark(std::vector<PickleValue*>& values) {
    if (marks_.empty()) return Malformed("it lacks a mark");
    values.assign(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return absl::OkStatus();
  }

  // ---- opcodes

  absl::Status Step(char opcode) {
    std::optional<absl::Status> status = Constant(opcode);
    if (!status) status = Container(opcode);
    if (!status) status = Memo(opcode);
    if (!status) status = Object(opcode);
    if (status) return *status;
    return Malformed(StrCat("opcode ", static_cast<int>(static_cast<unsigned char>(opcode)), " is not read here"));
  }

  // Nothing if it is no opcode of this group; likewise below.
  std::optional<absl::Status> Constant(char opcode) {
    switch (opcode) {
      case '\x80':  // PROTO
        return Protocol();
      case 'N':
        Push(Kind::kNone);
        return absl::OkStatus();
      case '\x88':
      case '\x89':
        Push(Kind::kBool).integer = opcode == '\x88' ? 1 : 0;
        return absl::OkStatus();
      case 'J':
        return Integer<int32_t>();
      case 'K':
        return Integer<uint8_t>();
      case 'M':
        return Integer<uint16_t>();
      case '\x8a':  // LONG1
        return Long();
      case 'G':
        return Number();
      case 'X':  // BINUNICODE
      case 'T':  // BINSTRING
        return Text<uint32_t>();
      case 'U':  // SHORT_BINSTRING
        return Text<uint8_t>();
      default:
        return std::nullopt;
    }
  }

  absl::Status Protocol() {
    uint8_t version = 0;
    RETRO_RETURN_IF_ERROR(Take(version));
    return version > 2
               ? Malformed(StrCat("protocol ", static_cast<int>(version), " is not 2, which torch.save writes,"))
               : absl::OkStatus();
  }

  template <typename T>
  absl::Status Integer() {
    T value = 0;
    RETRO_RETURN_IF_ERROR(Take(value));
    Push(Kind::kInteger).integer = value;
    return absl::OkStatus();
  }

  // Little-endian two's complement. Numbers beyond 64 bits are of no use to us: they are opaque.
  absl::Status Long() {
    uint8_t size = 0;
    std::string_view digits;
    RETRO_RETURN_IF_ERROR(Take(size));
    RETRO_RETURN_IF_ERROR(TakeBytes(size, digits));
    if (size > sizeof(int64_t)) {
      Push(Kind::kObject);
      return absl::OkStatus();
    }
    uint64_t value = !digits.empty() && (digits.back() & 0x80) != 0 ? ~uint64_t{0} : 0;
    for (size_t i = digits.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(digits[i]);
    Push(Kind::kInteger).integer = static_cast<int64_t>(value);
    return absl::OkStatus();
  }

  absl::Status Number() {  // big-endian
    uint64_t bits = 0;
    RETRO_RETURN_IF_ERROR(Take(bits));
    Push(Kind::kNumber).number = std::bit_cast<double>(__builtin_bswap64(bits));
    return absl::OkStatus();
  }

  template <typename Size>
  absl::Status Text() {
    Size size = 0;
    std::string_view text;
    RETRO_RETURN_IF_ERROR(Take(size));
    RETRO_RETURN_IF_ERROR(TakeBytes(size, text));
    Push(Kind::kText).text = text;
    return absl::OkStatus();
  }

  std::optional<absl::Status> Container(char opcode) {
    switch (opcode) {
      case '(':
        marks_.push_back(stack_.size());
        return absl::OkStatus();
      case '}':
        Push(Kind::kDict);
        return absl::OkStatus();
      case ']':
        Push(Kind::kList);
        return absl::OkStatus();
      case ')':
        Push(Kind::kTuple);
        return absl::OkStatus();
      case 't':
        return MarkedTuple();
      case '\x85':
      case '\x86':
      case '\x87':  // TUPLE1 ... TUPLE3
        return Tuple(static_cast<size_t>(static_cast<unsigned char>(opcode)) - 0x84);
      case 'a':
      case 'e':
        return Append(opcode == 'e');
      case 's':
      case 'u':
        return SetItems(opcode == 'u');
      default:
        return std::nullopt;
    }
  }

  absl::Status MarkedTuple() {
    std::vector<PickleValue*> items;
    RETRO_RETURN_IF_ERROR(PopMark(items));
    Push(Kind::kTuple).items.assign(items.begin(), items.end());
    return absl::OkStatus();
  }

  absl::Status Tuple(size_t size) {
    RETRO_RETURN_IF_ERROR(Need(size));
    const std::vector<const PickleValue*> items(stack_.end() - static_cast<std::ptrdiff_t>(size), stack_.end());
    stack_.resize(stack_.size() - size);
    Push(Kind::kTuple).items = items;
    return absl::OkStatus();
  }

  // The values of an APPEND or SETITEM, or those above the mark of an APPENDS or SETITEMS.
  absl::Status TakeItems(size_t alone, bool marked, std::vector<PickleValue*>& items) {
    if (marked) return PopMark(items);
    RETRO_RETURN_IF_ERROR(Need(alone));
    items.assign(stack_.end() - static_cast<std::ptrdiff_t>(alone), stack_.end());
    stack_.resize(stack_.size() - alone);
    return absl::OkStatus();
  }

  absl::Status Append(bool marked) {
    std::vector<PickleValue*> items;
    RETRO_RETURN_IF_ERROR(TakeItems(1, marked, items));
    RETRO_RETURN_IF_ERROR(Need(1));
    PickleValue& list = *stack_.back();
    if (list.kind != Kind::kList && list.kind != Kind::kObject) return Malformed("it appends to what is no list");
    list.items.insert(list.items.end(), items.begin(), items.end());
    return absl::OkStatus();
  }

  absl::Status SetItems(bool marked) {
    std::vector<PickleValue*> items;
    RETRO_RETURN_IF_ERROR(TakeItems(2, marked, items));
    RETRO_RETURN_IF_ERROR(Need(1));
    PickleValue& dict = *stack_.back();
    if (dict.kind != Kind::kDict && dict.kind != Kind::kObject) return Malformed("it sets items of what is no dict");
    if (items.size() % 2 != 0) return Malformed("it sets a key without a value");
    for (size_t i = 0; i < items.size(); i += 2) dict.entries.emplace_back(items[i], items[i + 1]);
    return absl::OkStatus();
  }

  std::optional<absl::Status> Memo(char opcode) {
    switch (opcode) {
      case 'q':
        return Put<uint8_t>();
      case 'r':
        return Put<uint32_t>();
      case 'h':
        return Get<uint8_t>();
      case 'j':
        return Get<uint32_t>();
      default:
        return std::nullopt;
    }
  }

  template <typename Index>
  absl::Status Put() {
    Index index = 0;
    RETRO_RETURN_IF_ERROR(Take(index));
    RETRO_RETURN_IF_ERROR(Need(1));
    memo_[index] = stack_.back();
    return absl::OkStatus();
  }

  template <typename Index>
  absl::Status Get() {
    Index index = 0;
    RETRO_RETURN_IF_ERROR(Take(index));
    const auto found = memo_.find(index);
    if (found == memo_.end()) return Malformed("it asks for what it has not kept");
    stack_.push_back(found->second);
    return absl::OkStatus();
  }

  std::optional<absl::Status> Object(char opcode) {
    switch (opcode) {
      case 'c':
        return Global();
      case 'R':     // REDUCE
      case '\x81':  // NEWOBJ
        return Call();
      case 'b':
        return Build();
      case 'Q':
        return Persistent();
      case '.':
        return Stop();
      default:
        return std::nullopt;
    }
  }

  absl::Status Global() {
    std::string_view module;
    std::string_view name;
    RETRO_RETURN_IF_ERROR(TakeLine(module));
    RETRO_RETURN_IF_ERROR(TakeLine(name));
    Push(Kind::kGlobal).text = std::string_view(module.data(), module.size() + 1 + name.size());
    return absl::OkStatus();
  }

  absl::Status Call() {
    PickleValue* arguments = nullptr;
    PickleValue* callable = nullptr;
    RETRO_RETURN_IF_ERROR(Pop(arguments));
    RETRO_RETURN_IF_ERROR(Pop(callable));
    PickleValue& object = Push(Kind::kObject);
    object.callable = callable;
    object.arguments = arguments;
    return absl::OkStatus();
  }

  absl::Status Build() {
    PickleValue* state = nullptr;
    RETRO_RETURN_IF_ERROR(Pop(state));
    RETRO_RETURN_IF_ERROR(Need(1));
    stack_.back()->state = state;
    return absl::OkStatus();
  }

  absl::Status Persistent() {
    PickleValue* id = nullptr;
    RETRO_RETURN_IF_ERROR(Pop(id));
    Push(Kind::kPersistent).callable = id;
    return absl::OkStatus();
  }

  absl::Status Stop() {
    PickleValue* root = nullptr;
    RETRO_RETURN_IF_ERROR(Pop(root));
    pickle_.root_ = root;
    return absl::OkStatus();
  }

  std::string_view bytes_;
  size_t at_ = 0;
  size_t start_ = 0;  // of the running opcode
  Pickle pickle_;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, PickleValue*> memo_;
};

absl::StatusOr<Pickle> Pickle::Read(std::string_view bytes) { return PickleReader(bytes).Run(); }

}  // namespace retro
