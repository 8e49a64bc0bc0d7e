"""The half of train.sh that runs on the GPU machine; nothing but Python's own library and torch's shared ones."""

import concurrent.futures
import csv
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time

import fp16

PIECE_BYTES, PIECES = 14 << 20, 4  # of what comes back in one command

store = pathlib.Path(sys.argv[1])
fetched = sys.argv[4] if sys.argv[2] == "--fetch" else None
out = pathlib.Path(sys.argv[3] if fetched else sys.argv[2])
seconds = float(sys.argv[3]) if not fetched and len(sys.argv) > 3 else 540
device = sys.argv[4] if not fetched and len(sys.argv) > 4 else "cuda"
seconds_to_train = float(os.environ.get("SECONDS_TO_TRAIN", 420))
toy = device == "cpu"
start = time.monotonic()

# The recipe: plain decoders read one pass over the text, or as much of it as there is time for, the same windows in the same order.
# Then the smallest of them, the twin, is taught retrieval (RETROfit): encoder and CCA alone are trained.
WINDOWS, LENGTH = (2, 512) if toy else (32, 1024)
TRY_STEPS = 4 if toy else 40
LEARNING_RATES = {"twin": 3e-3, "plain2x": 2e-3, "plain4x": 1.5e-3, "retro": 1e-3}
FIT_STEPS = 3  # for every step of the plain decoders
STEPS_MAX = 8 if toy else 1 << 20


def left():
    return seconds - (time.monotonic() - start)


def figure(**fields):
    line = json.dumps(fields)
    print(line, flush=True)
    with open(store / "figures.jsonl", "a") as file:
        print(line, file=file)


def torch_library_folder():
    code = "import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec('torch').origin).parent / 'lib')"
    return subprocess.run([os.environ.get("RETRO_PYTHON", sys.executable), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


class OutOfTime(Exception):
    pass


def run(program, *arguments):
    """Runs until it ends or the time for this command is over; what was killed goes on the next time."""
    if left() < 5:
        raise OutOfTime
    with open(store / "log", "a") as log:
        print("$", program, *arguments, file=log, flush=True)
        began = log.tell()
        try:
            done = subprocess.run([f"bin/{program}", *map(str, arguments)], env=environment, stdout=log, stderr=log, timeout=left() - 3, cwd=store)
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
    if done.returncode != 0:
        tail = (store / "log").read_text()[began:][-2000:]
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


def prepare(name, k, *databases):
    """Goes on from the token files that `pack` has made, and therefore with its arguments."""
    more = ["--leave-out-near-duplicates-of", "texts/never.jsonl"] if name == "train" else []
    for database in databases:
        more += ["--database", f"data/{database}"]
    run("retro-train", "prepare", "--documents", f"texts/{name}.jsonl", "--tokenizer", "retro-16k.model", "--out", f"data/{name}",
        "--embedder", "embedder", "--embedder-fingerprint", (store / "embedder_fingerprint").read_text().strip(),
        "--device", device, "--k", k, *more)
    figure(what="data", name=name, **{k: v for k, v in json.load(open(store / "data" / name / "data.json")).items() if k in ("documents", "chunks", "tokens")})


def init(name):
    (store / f"{name}.config.json").write_text(json.dumps(models[name]))
    run("retro-model", "init", "--config", f"{name}.config.json", "--tokenizer", "retro-16k.model", "--out", f"start/{name}")


def init_all():
    plain = [name for name in models if name != "retro"]
    with concurrent.futures.ThreadPoolExecutor(len(plain)) as pool:
        list(pool.map(init, plain))
    (store / "retro.config.json").write_text(json.dumps(models["retro"]))


def train(name, run_name, data, steps, *more):
    command = ["run", "--model", f"start/{name}"]
    if name == "retro":
        command = ["fit", "--model", "runs/twin/model" if data == "train" else "start/twin", "--config", "retro.config.json"]  # --new-weights copying, the default
    run("retro-train", *command, "--data", f"data/{data}", "--out", f"runs/{run_name}", "--device", device, "--windows", WINDOWS, "--length", LENGTH,
        "--steps", steps, "--warmup-steps", min(max(steps // 20, 2), 150), "--learning-rate", LEARNING_RATES[name], "--final-share", 0.05,
        "--beta2", 0.95, *more)


def rows(run_name):
    return list(csv.DictReader(open(store / "runs" / run_name / "curve.csv")))


def try_out(name):
    """Some steps on the held-out text, for the speed; the weights are thrown away."""
    train(name, f"{name}-try", "versions_valid", TRY_STEPS, "--log-steps", TRY_STEPS // 4, "--checkpoint-steps", TRY_STEPS,
          "--validation", "data/versions_valid", "--validation-steps", TRY_STEPS, "--validation-batches", 2)
    curve = rows(f"{name}-try")
    speed = sum(float(row["tokens_per_second"]) for row in curve[1:]) / len(curve[1:])
    figure(what="try", model=name, tokens_per_second=round(speed), loss=[float(row["loss"]) for row in curve],
           validation=[float(row["validation_loss"] or 0) for row in curve[-1:]])
    shutil.rmtree(store / "runs" / f"{name}-try")


def plan():
    """As many steps for all as fit the time, at most one pass."""
    tries = {f["model"]: f for f in map(json.loads, open(store / "figures.jsonl")) if f["what"] == "try"}
    tokens = json.load(open(store / "data/train/data.json"))["tokens"]
    second = sum((FIT_STEPS if name == "retro" else 1) / tries[name]["tokens_per_second"] for name in tries)  # a token
    steps = min(int(seconds_to_train / second), tokens) // (WINDOWS * LENGTH)
    steps = min(steps, STEPS_MAX)
    (store / "steps").write_text(str(steps))
    figure(what="plan", steps=steps, tokens_a_step=WINDOWS * LENGTH, tokens=tokens)


def train_whole(name):
    steps = int((store / "steps").read_text())
    steps = FIT_STEPS * steps if name == "retro" else steps
    part = max(steps // 8, 1)
    # A little before the end, so that it stops by itself with a checkpoint.
    train(name, name, "train", steps, "--validation", "data/versions_valid", "--validation-steps", part, "--validation-batches", 4 if toy else 12,
          "--checkpoint-steps", 2 * part, "--log-steps", max(part // 8, 1), "--seconds-max", max(left() - 20, 5))
    last = rows(name)[-1]
    if int(last["step"]) < steps:
        raise OutOfTime
    figure(what="trained", model=name, **{k: float(v) for k, v in last.items() if v})


def evaluate(name):
    """Bits per byte of the held-out texts, in fp32; the whole report comes back with the state."""
    for text in ("versions_valid", "valid"):
        report = store / f"eval-{text}-{name}.json"
        run("retro-eval", "text", "--model", f"runs/{name}/model", "--data", f"data/{text}", "--k", "0,1,2,4,10" if name == "retro" else "0",
            "--tokens-max", 1024, "--device", device, "--commit", (store / "commit").read_text().strip(), "--json", report)
        figure(what="evaluated", model=name, text=text, bits_per_byte={str(each["k"]): each["bits_per_byte"]["value"] for each in json.loads(report.read_text())["runs"]})


def model_archive(name):
    """The model's folder with weights in fp16, and its curve."""
    folder = store / "runs" / name
    fp16.convert(folder / "model/model.safetensors", folder / "model.fp16")
    data = (folder / "model.fp16").read_bytes()
    config = json.loads((folder / "model/config.json").read_text())
    config["revision"] = hashlib.sha256(data).hexdigest()
    files = {"model.safetensors": data, "config.json": (json.dumps(config, indent=2) + "\n").encode(), "curve.csv": (folder / "curve.csv").read_bytes()}
    with tarfile.open(store / f"{name}.tar.new", "w") as archive:
        for file, content in files.items():
            info = tarfile.TarInfo(f"{name}/{file}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (store / f"{name}.tar.new").rename(store / f"{name}.tar")


def fetch(name, first):
    if not (store / f"train-{name}.done").exists():
        raise SystemExit(f"on_gpu.py: {name} is not trained yet: say `go` again")
    if not (store / f"{name}.tar").exists():
        model_archive(name)
    whole = -(-(store / f"{name}.tar").stat().st_size // PIECE_BYTES)
    with open(store / f"{name}.tar", "rb") as archive:
        archive.seek(first * PIECE_BYTES)
        number = first
        while number < first + PIECES and (piece := archive.read(PIECE_BYTES)):
            (out / f"{name}.tar.{number:02}").write_bytes(piece)
            number += 1
    print(f"{name}: pieces {first} to {number - 1} of {whole}")


def describe_machine():
    card = "none"
    if device != "cpu":
        card = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip()
    figure(what="machine", device=device, card=card, commit=(store / "commit").read_text().strip())


def work():
    stage("machine", describe_machine)
    stage("init", init_all)
    stage("try-prepare", lambda: prepare("versions_valid", 2))
    for name in models:
        stage(f"try-{name}", lambda name=name: try_out(name))
    if not (store / "data/train/data.json").exists():
        raise OutOfTime
    stage("train", lambda: prepare("train", 2))
    stage("versions_valid", lambda: prepare("versions_valid", 10, "train", "versions_valid"))
    stage("valid", lambda: prepare("valid", 10, "train"))
    stage("plan", plan)
    for name in ("twin", "retro", "plain2x", "plain4x"):
        stage(f"train-{name}", lambda name=name: train_whole(name))
        stage(f"evaluate-{name}", lambda name=name: evaluate(name))
    figure(what="end")


out.mkdir(parents=True, exist_ok=True)
models = json.load(open(store / "models.json"))
if fetched:
    fetch(fetched, int(sys.argv[5]) if len(sys.argv) > 5 else 0)
    sys.exit()
environment = dict(os.environ, LD_LIBRARY_PATH=f"{torch_library_folder()}:{store / 'lib'}", OMP_WAIT_POLICY="passive")
try:
    work()
except OutOfTime:
    print("not at the end: say `go` again", flush=True)
finally:
    shutil.copy(store / "figures.jsonl", out / "figures.jsonl")
    with tarfile.open(out / "state.tar.gz", "w:gz", compresslevel=1) as archive:
        for path in (*store.glob("runs/*/curve.csv"), *store.glob("data/*/neighbours.*"), *store.glob("eval-*.json"), store / "log"):
            if path.exists():
                archive.add(path, path.relative_to(store))
