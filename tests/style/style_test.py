"""The style guide as a test: what a reviewer would otherwise have to notice. Prints every breach; exit code 1 if there is one."""

import os
import re
import subprocess
import sys

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 600
PROGRAM_FOLDERS = ("common/", "retriever_service/", "generator_service/", "trainer/", "cli/", "builder/", "tests/")

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True).stdout.split("\n")
files = [f for f in tracked if f and os.path.isfile(f)]
breaches = []


def breach(where, what):
    breaches.append(f"{where}: {what}")


def read(name):
    with open(name, encoding="utf-8") as f:
        return f.read()


def sources():
    return [f for f in files if f.startswith(PROGRAM_FOLDERS) and f.endswith((".cc", ".h"))]


def dead_files():
    """Every source is part of a target, every header is included, every test is registered."""
    cmake = {os.path.dirname(f): read(f) for f in files if f.endswith("CMakeLists.txt")}
    everything = "\n".join(read(f) for f in sources())
    for f in sources():
        folder, name = os.path.split(f)
        if f.endswith(".cc"):
            listing = cmake.get(folder, cmake.get(os.path.dirname(folder), ""))
            stem = name[:-3]
            if not re.search(rf"\b{re.escape(name)}\b", listing) and not re.search(rf"retro_(test|fuzz)\({stem.removeprefix('fuzz_')}\b", listing):
                breach(f, f"is in no target of {folder}/CMakeLists.txt")
        elif f'#include "{f}"' not in everything:
            breach(f, "is included by nothing")


def functions():
    """No function longer than a screen. Our code is formatted, so a body at namespace level ends at a brace in column 0."""
    for f in sources():
        start = None
        for number, line in enumerate(read(f).split("\n"), 1):
            opens = line.endswith("{") and line[:1] not in (" ", "#", "/", "}")
            if start is None and opens and not re.match(r"(namespace|class|struct|enum|extern|union|template)\b", line):
                start = number
            elif start is None and line and line[0] not in " #/}" and not line.endswith((";", "{", "}")):
                continue
            elif line.startswith("}") and start is not None:
                if number - start > FUNCTION_LINES_MAX:
                    breach(f"{f}:{start}", f"a function of {number - start} lines (at most {FUNCTION_LINES_MAX})")
                start = None


def libraries_have_their_files():
    """FAISS and RocksDB are each included by what is there for that alone, so that their quirks and exceptions end there."""
    for library, pattern, allowed in (("FAISS", r"#include <faiss/", {"retriever_service/index/faiss_library.cc"}),
                                      ("RocksDB", r"#include <rocksdb/", {f"retriever_service/store/{name}" for name in ("key_value.cc", "rocks_errors.h", "rocks_errors.cc")})):
        users = {f for f in sources() if not f.startswith("tests/") and re.search(pattern, read(f))}
        if users - allowed:
            breach(", ".join(users - allowed), f"{library} is to be included by {', '.join(sorted(allowed))}")


def cut():
    """retro_core can be carried to another machine: no gRPC, protobuf, RocksDB or FAISS in what it is made of."""
    core = ("generator_service/model/", "generator_service/checkpoints/", "generator_service/engine/", "retriever_service/embed/", "trainer/")
    for f in sources():
        text = read(f)
        if f.startswith(core) and re.search(r'#include [<"](grpc|google/|rocksdb/|faiss/|retro/)', text):
            breach(f, "retro_core must not include gRPC, protobuf, RocksDB or FAISS")
        if f.startswith("common/") and re.search(r'#include "(retriever_service|generator_service|trainer|cli|builder)/', text):
            breach(f, "common/ must not depend on what stands above it")
        if f.startswith("generator_service/") and '#include "retriever_service/' in text:
            breach(f, "the services meet over gRPC alone")


def words():
    """Calls that are banned and words that have no place."""
    banned = (
        (r"\bstd::(mutex|shared_mutex|condition_variable|lock_guard|unique_lock)\b", "use common/base/sync.h", ("common/base/sync.h",)),
        (r"\b(strcpy|strcat|sprintf|gets|strtok|rand|system|atoi|atol)\s*\(", "banned call", ()),
        (r"\busing namespace std\b", "no using namespace std", ()),
        (r"(?<!retro_num_)[Nn]eighbor(?!s_?distances)", "British spelling: neighbour", ()),
        (r"\b(TODO|FIXME|XXX|HACK)\b", "a promise in place of a feature", ("tests/style/style_test.py",)),
        (r"\bDISABLED_|GTEST_SKIP\b", "a test that does not run", ("tests/style/style_test.py",)),
    )
    for f in sources():
        for number, line in enumerate(read(f).split("\n"), 1):
            code = line.split("//")[0] if "(" in line else line  # prose may name what code may not call
            for pattern, what, allowed in banned:
                if f not in allowed and re.search(pattern, code):
                    breach(f"{f}:{number}", what)


def sizes():
    for f in sources():
        lines = read(f).count("\n")
        if lines > FILE_LINES_MAX:
            breach(f, f"{lines} lines (at most {FILE_LINES_MAX}): is it one concept?")


def headers_start():
    """The head of a file says what it is."""
    for f in sources():
        if f.endswith(".h") and not read(f).startswith("//"):
            breach(f, "a header begins with a comment that says what it is")


def reasons_documented():
    names = re.findall(r'\{Reason::\w+, "([A-Z_]+)"\}', read("common/base/error.cc"))
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", read("docs/errors.md"), re.M))
    for name in sorted(set(names) ^ documented):
        breach("docs/errors.md", f"{name} is in the code or in the table, but not in both")


def codes_documented():
    """Of each reason the codes that the code gives it, and no other (status_test has those that libraries give)."""
    names = dict(re.findall(r'\{Reason::(\w+), "([A-Z_]+)"\}', read("common/base/error.cc")))
    documented = {(reason, code) for reason, codes in re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_, ]+) \|", read("docs/errors.md"), re.M)
                  for code in codes.split(", ")}
    used = {}
    for f in sources():
        if not f.startswith("tests/"):
            for code, reason in re.findall(r"Error\(\s*absl::StatusCode::k(\w+),\s*Reason::(k\w+)", read(f)):
                used[names[reason], re.sub(r"(?<!^)(?=[A-Z])", "_", code).upper()] = f
    for reason, code in sorted(set(used) - documented):
        breach(used[reason, code], f"gives {reason} with {code}, which docs/errors.md does not have")
    for reason, code in sorted(documented - set(used)):
        breach("docs/errors.md", f"has {reason} with {code}, which nothing gives")


def metrics_documented():
    used = set()
    for f in sources():
        if not f.startswith("tests/") and not f.endswith("_format.cc"):  # foreign formats have names of their own
            used |= set(re.findall(r'"((?:retro|process)_[a-z0-9_]+)"', read(f)))
    documented = set(re.findall(r"^\| `((?:retro|process)_[a-z0-9_]+)` \|", read("docs/metrics.md"), re.M))
    for name in sorted(used ^ documented):
        breach("docs/metrics.md", f"{name} is in the code or in the table, but not in both")


def documents_name_files_that_exist():
    for f in files:
        if f.endswith(".md"):
            for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:cc|h|py|sh|proto|md|model|json))`", read(f)):
                if path not in files and os.path.normpath(os.path.join(os.path.dirname(f), path)) not in files:
                    breach(f, f"names {path}, which does not exist")


for check in (dead_files, functions, libraries_have_their_files, cut, words, sizes, headers_start, reasons_documented, codes_documented,
              metrics_documented,
              documents_name_files_that_exist):
    check()
print("\n".join(breaches) if breaches else f"style: {len(sources())} sources clean")
sys.exit(1 if breaches else 0)
