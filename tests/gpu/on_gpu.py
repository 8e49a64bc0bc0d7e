"""The half of tests/gpu/run.sh that runs on the GPU machine; nothing but Python's own library and torch's shared ones."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import time

SECONDS_IN_ALL = 570

bundle, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
device = sys.argv[3] if len(sys.argv) > 3 else "cuda"
parts = sys.argv[4:] or ["parity", "tests", "model", "bench", "serve", "train"]
out.mkdir(parents=True, exist_ok=True)
if not (bundle / "bin").exists():
    with tarfile.open(bundle / "contents.tar.xz") as contents:
        contents.extractall(bundle, filter="data")
start = time.monotonic()
failed = []


def torch_library_folder():
    code = "import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec('torch').origin).parent / 'lib')"
    return subprocess.run([os.environ.get("RETRO_PYTHON", sys.executable), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


environment = dict(
    os.environ,
    LD_LIBRARY_PATH=f"{torch_library_folder()}:{bundle / 'lib'}",
    RETRO_SOURCE_DIR=str(bundle),
    RETRO_TEST_DEVICE=device,
    OMP_WAIT_POLICY="passive",
)
log = open(out / "log", "w")
figures = open(out / "figures.jsonl", "w")


def figure(**fields):
    line = json.dumps(fields)
    print(line, flush=True)
    print(line, file=figures, flush=True)
    if fields.get("pass") is False:
        failed.append(fields)


def run(*command, folder=None):
    """Exit status and output; 124 where the time for everything is over."""
    left = SECONDS_IN_ALL - (time.monotonic() - start)
    try:
        done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, timeout=max(left, 1), cwd=folder)
        code, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        code, output = 124, f"{(late.stdout or b'').decode()}\nno time was left"
    print("$", *command, f"\n{output}", file=log, flush=True)
    return code, output


def machine():
    card = run("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")[1].strip() if device != "cpu" else "none"
    figure(what="machine", device=device, card=card, commit=(bundle / "commit").read_text().strip())


def test_program(name, chosen="*"):
    began = time.monotonic()
    code, output = run(bundle / "bin" / name, f"--gtest_filter={chosen}")
    passed = re.search(r"\[  PASSED  \] (\d+) test", output)
    worst = [float(value) for value in re.findall(r"max \|diff\| ([\d.e+-]+)", output)]
    figure(what="tests", name=name, passed=int(passed.group(1)) if passed else 0, worst_diff=max(worst, default=None),
           seconds=round(time.monotonic() - began, 1), **{"pass": code == 0})


# Greatest difference from the fp64 reference allowed, by number format. The goldens' logits reach 20, their activations 50, of which
# bf16 keeps three digits.
TOLERANCES = {"fp32": 2e-4, "bf16": 2.0}


def parity(config):
    name = config.stem
    model = out / "models" / name
    weights = config.with_suffix("").with_suffix(".weights.safetensors")
    code, output = run(bundle / "bin/retro-model", "import", "--from", "paper", "--config", config, "--weights", weights, "--out", model)
    if code != 0:
        figure(what="parity", model=name, error=output.strip(), **{"pass": False})
        return
    for number_format, tolerance in TOLERANCES.items():
        code, output = run(bundle / "bin/retro-model", "verify", "--model", model, "--reference",
                           config.with_suffix("").with_suffix(".io.safetensors"), "--device", device, "--dtype", number_format, "--tolerance", tolerance, "--json")
        report = next((json.loads(line) for line in output.splitlines() if line.startswith("{")), None)
        worst = max((o["max_abs_diff"] for o in report["outputs"].values()), default=None) if report else None
        figure(what="parity", model=name, dtype=number_format, max_abs_diff=worst, **{"pass": code == 0})


def bench():
    code, output = run(bundle / "bin/model_bench", "device", device)
    for line in output.splitlines():
        if line.startswith("{"):
            figure(what="bench", **json.loads(line))
    if code != 0:
        figure(what="bench", name="model_bench", error=output.strip().splitlines()[-1:], **{"pass": False})


def train():
    if device == "cpu":
        return print("training is measured on a GPU alone", flush=True)
    code, output = run(sys.executable, bundle / "tests/train_bench.py", "--build", bundle, "--deps", "none", "--device", device,
                       "--data", bundle / "training", folder=bundle)
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    for row in rows:
        figure(what="train", **row)
    if code != 0 or not rows:
        figure(what="train", error=output.strip().splitlines()[-3:], **{"pass": False})


def serve():
    os.environ.update(environment, RETRO_BUILD=str(bundle))
    sys.path.append(str(bundle / "tests"))
    import harness
    import serve as part
    try:
        part.serve(harness, bundle, device, figure)
    except Exception as error:  # the figures before it are kept
        figure(what="serve", error=repr(error), **{"pass": False})


machine()
# Side by side, for most of their time goes into starting.
with concurrent.futures.ThreadPoolExecutor(8 if device != "cpu" else 1) as pool:
    work = []
    if "parity" in parts:
        work += [pool.submit(parity, config) for config in sorted((bundle / "tests/goldens/paper").glob("*.json"))]
    if "tests" in parts:
        # MiniLM itself would not fit the bundle.
        tests = {"engine_test": "*", "bert_encoder_test": "Kinds/*OtherSizes*",
                 "fixed_step_test": "*", "device_sampler_test": "*"}
        work += [pool.submit(test_program, name, chosen) for name, chosen in tests.items()]
    if "model" in parts:
        work.append(pool.submit(test_program, "model_test"))
    for part in work:
        part.result()
if "bench" in parts:
    bench()
if "serve" in parts:
    serve()
if "train" in parts:
    train()
figure(what="end", failed=len(failed), seconds=round(time.monotonic() - start, 1))
sys.exit(1 if failed else 0)
