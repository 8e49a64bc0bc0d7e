"""Picks the demo model's training text: subset.py CORPUS OUT. Whole families of versions, and documents without a relative, of the
sources whose licences ask for no more than to be named. The same documents every time."""

import collections
import hashlib
import json
import pathlib
import subprocess
import sys

# Bytes of text taken from each source: families are what teaches a model the worth of a neighbour, books and textbooks plain English.
VERSIONS = {
    "django": 2.6e6, "react": 1.6e6, "rustc-dev-guide": 1.2e6, "rust-reference": 0.7e6, "cargo": 0.8e6, "nomicon": 0.4e6,
    "rust-by-example": 0.2e6, "cockroachdb": 0.9e6, "laravel": 0.8e6, "sqlalchemy": 0.8e6, "pep": 0.8e6, "factbook": 0.8e6,
    "openstax-introductory-statistics": 0.9e6, "openstax-prealgebra": 0.4e6, "cfpb-regs": 0.4e6, "instructor-training": 0.6e6,
    "shell-novice": 0.5e6, "git-novice": 0.4e6, "opensource-guide": 0.3e6, "jekyll": 0.5e6, "etcd": 0.4e6, "prometheus": 0.4e6,
}  # fmt: skip
TRAIN = {"classic": 1.4e6, "openstax": 1.0e6, "postgresql-doc-15": 0.5e6, "python-doc": 0.4e6, "apache2-doc": 0.3e6, "18f": 0.3e6}
DOCUMENT_BYTES_MAX = 400_000  # no book may take a source's share alone

corpus, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])


def documents(name):
    reader = subprocess.Popen(["zstd", "-dc", "--long=27", corpus / f"{name}.jsonl.zst"], stdout=subprocess.PIPE)
    for line in reader.stdout:
        yield json.loads(line)
    if reader.wait() != 0:
        raise SystemExit(f"subset.py: {name}.jsonl.zst cannot be read")


def picked(name, budgets):
    """Families in an order that their names decide, until a source's budget is used."""
    families = collections.defaultdict(list)
    for document in documents(name):
        source = document["id"].split("/")[0]
        if source in budgets and len(document["text"]) <= DOCUMENT_BYTES_MAX:
            families[source, document.get("family", document["id"])].append(document)
    used = collections.Counter()
    for (source, family), members in sorted(families.items(), key=lambda item: hashlib.sha256(item[0][1].encode()).digest()):
        size = sum(len(member["text"].encode()) for member in members)
        if used[source] + size <= budgets[source]:
            used[source] += size
            yield from members
    for source, size in sorted(used.items()):
        print(f"{name}/{source}: {size / 1e6:.2f} MB", file=sys.stderr)


def never_trained_on():
    for name in ("valid", "versions_valid", "test"):
        yield from documents(name)
    for document in documents("demo"):
        if document["id"].startswith(("state_union/", "rust-book/")):
            yield document


def write(path, texts):
    with open(path, "w") as file:
        for document in texts:
            file.write(json.dumps(document, ensure_ascii=False) + "\n")


write(out / "train.jsonl", (d for name, budgets in (("versions", VERSIONS), ("train", TRAIN)) for d in picked(name, budgets)))
write(out / "never.jsonl", never_trained_on())
