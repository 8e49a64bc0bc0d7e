"""The half of train.sh that runs on the GPU machine; nothing but Python's own library and torch's shared ones."""

import csv
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import fp16

FILE_BYTES_MAX = 14 << 20
LENGTH = 512

store, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 540
device = sys.argv[4] if len(sys.argv) > 4 else "cuda"
seconds_to_train = float(os.environ.get("SECONDS_TO_TRAIN", 600))
windows = 128 if device != "cpu" else 2
start = time.monotonic()
out.mkdir(parents=True, exist_ok=True)
log = open(store / "log", "a")
figures_path = store / "figures.jsonl"


def left():
    return seconds - (time.monotonic() - start)


def figure(**fields):
    line = json.dumps(fields)
    print(line, flush=True)
    with open(figures_path, "a") as file:
        print(line, file=file)


def torch_library_folder():
    code = "import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec('torch').origin).parent / 'lib')"
    return subprocess.run([os.environ.get("RETRO_PYTHON", sys.executable), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


environment = dict(os.environ, LD_LIBRARY_PATH=f"{torch_library_folder()}:{store / 'lib'}", OMP_WAIT_POLICY="passive")


class OutOfTime(Exception):
    pass


def run(program, *arguments):
    """Runs until it ends or the time for this command is over; what was killed goes on the next time."""
    if left() < 5:
        raise OutOfTime
    print("$", program, *arguments, file=log, flush=True)
    try:
        done = subprocess.run([str(store / "bin" / program), *map(str, arguments)], env=environment, stdout=log, stderr=log, timeout=left() - 3)
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
    if done.returncode != 0:
        tail = (store / "log").read_text()[-2000:]
        raise SystemExit(f"{program} {arguments[0]} failed with status {done.returncode}:\n{tail}")


def stage(name, work):
    """Once in all commands together."""
    done = store / f"{name}.done"
    if done.exists():
        return
    began = time.monotonic()
    work()
    done.touch()
    figure(what="stage", name=name, seconds=round(time.monotonic() - began, 1))


def join_corpus():
    expected = int((store / "corpus_bytes").read_text())
    with open(store / "corpus.jsonl.zst", "wb") as joined:
        for piece in sorted(store.glob("corpus.[0-9][0-9]")):
            shutil.copyfileobj(open(piece, "rb"), joined)
    size = (store / "corpus.jsonl.zst").stat().st_size
    if size != expected:
        raise SystemExit(f"the corpus has {size} of {expected} bytes: take the other parts first")


def prepare(name, *databases):
    documents = store / ("corpus.jsonl.zst" if name == "train" else f"{name}.jsonl.zst")
    more = ["--leave-out-near-duplicates-of", store / "never_trained_on.jsonl.zst"] if name == "train" else []
    for database in databases:
        more += ["--database", store / "data" / database]
    run("retro-train", "prepare", "--documents", documents, "--tokenizer", store / "retro-16k.model", "--out", store / "data" / name,
        "--embedder", store / "embedder", "--embedder-fingerprint", (store / "embedder_fingerprint").read_text().strip(),
        "--device", device, "--k", 2, *more)
    figure(what="data", name=name, **{k: v for k, v in json.load(open(store / "data" / name / "data.json")).items() if k in ("documents", "chunks", "tokens")})


def init(name):
    config = store / f"{name}.config.json"
    config.write_text(json.dumps(json.load(open(store / "models.json"))[name]))
    run("retro-model", "init", "--config", config, "--tokenizer", store / "retro-16k.model", "--out", store / "start" / name)


def train(name, run_name, steps, *more):
    run("retro-train", "run", "--model", store / "start" / name, "--data", store / "data/train", "--validation", store / "data/versions_valid",
        "--out", store / "runs" / run_name, "--device", device, "--windows", windows, "--length", LENGTH, "--steps", steps,
        "--warmup-steps", max(steps // 50, 5), "--learning-rate", 2e-3, "--validation-batches", 8, *more)


def rows(run_name):
    return list(csv.DictReader(open(store / "runs" / run_name / "curve.csv")))


def plan(name):
    """How many steps fit the time: from the speed of a few."""
    path = store / f"{name}.steps"
    if not path.exists():
        probe = 20 if device != "cpu" else 4
        shutil.rmtree(store / "runs" / f"{name}-probe", ignore_errors=True)
        train(name, f"{name}-probe", probe, "--log-steps", max(probe // 2, 1), "--validation-steps", probe)
        speed = float(rows(f"{name}-probe")[-1]["tokens_per_second"])
        tokens = int(rows(f"{name}-probe")[-1]["tokens"]) / probe
        steps = max(int(seconds_to_train / 2 * speed / tokens), probe)
        path.write_text(str(steps))
        figure(what="speed", model=name, tokens_per_second=speed, tokens_a_step=tokens, steps=steps)
    return int(path.read_text())


def train_whole(name):
    steps = plan(name)
    validation = max(steps // 10, 1)
    # A little before the end, so that it stops by itself with a checkpoint.
    train(name, name, steps, "--checkpoint-steps", validation, "--validation-steps", validation, "--seconds-max", max(left() - 45, 5))
    if int(rows(name)[-1]["step"]) < steps:
        raise OutOfTime
    last = rows(name)[-1]
    figure(what="trained", model=name, **{k: float(v) for k, v in last.items() if v})


def bring_back(name):
    """The model's folder with weights in fp16, cut into files that may travel."""
    folder = store / "runs" / name / "model"
    if not folder.exists():
        return
    target = out / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    fp16.convert(folder / "model.safetensors", target / "whole")
    data = (target / "whole").read_bytes()
    (target / "whole").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["revision"] = hashlib.sha256(data).hexdigest()
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for number, place in enumerate(range(0, len(data), FILE_BYTES_MAX)):
        (target / f"model.safetensors.{number}").write_bytes(data[place : place + FILE_BYTES_MAX])
    shutil.copy(store / "runs" / name / "curve.csv", target / "curve.csv")


def work():
    stage("corpus", join_corpus)
    stage("train", lambda: prepare("train"))
    stage("versions_valid", lambda: prepare("versions_valid", "train", "versions_valid"))
    stage("valid", lambda: prepare("valid", "train"))
    for name in ("retro", "twin"):
        stage(f"init-{name}", lambda name=name: init(name))
        stage(f"train-{name}", lambda name=name: train_whole(name))


if not figures_path.exists():
    card = "none"
    if device != "cpu":
        card = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
    figure(what="machine", device=device, card=card, commit=(store / "commit").read_text().strip())
try:
    work()
    figure(what="end")
except OutOfTime:
    print("out of time: say `go` again", flush=True)
for name in ("retro", "twin"):
    bring_back(name)
shutil.copy(figures_path, out / "figures.jsonl")
(out / "log").write_text("\n".join(re.sub(r"\S*/", "", line)[:300] for line in (store / "log").read_text().splitlines()[-400:]))
