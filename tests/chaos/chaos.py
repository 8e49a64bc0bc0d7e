"""The fault run; see run.sh. Exit code 1 if anything acknowledged is lost or wrong, a call hung, or an error is not a documented one."""

import json
import random
import shutil
import sys
import tempfile
import time

import harness
from cluster import REPLICAS, Cluster
from load import Load, Oracle

KINDS = ("SIGKILL", "SIGTERM", "stopped", "expired", "late", "cut off", "full", "promote", "down")
PAUSE_S = (0.3, 3)  # between two faults
REVIVED = 0.7  # how often what has ended is started after a fault
RECOVERY_S = 60


def disturb(cluster, load, oracle, rng, seconds):
    """How many faults of each kind there were."""
    kinds = {}
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        time.sleep(rng.uniform(*PAUSE_S))
        what = cluster.fault()
        print(f"{time.monotonic() - begin:7.1f} s  {what}", flush=True)
        kind = next(word for word in KINDS if word in what)
        kinds[kind] = kinds.get(kind, 0) + 1
        if rng.random() < REVIVED:
            cluster.revive()
        for what in load.hung():
            oracle.wrong(f"hung: {what}")
    return kinds


def check_end(cluster, load, oracle):
    cluster.heal()
    try:
        harness.wait_for("all replicas in sync", cluster.all_in_sync, RECOVERY_S)
    except AssertionError as error:
        oracle.wrong(f"{error}: {cluster.state()}")
    load.read_all(RECOVERY_S)
    says = cluster.verify()
    for shard in set(REPLICAS.values()):
        if len({says[name] for name in REPLICAS if REPLICAS[name] == shard}) != 1:
            oracle.wrong(f"the replicas of shard {shard} differ: {says}")


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    print(f"fault run of {seconds:.0f} s, seed {seed}", flush=True)
    folder = tempfile.mkdtemp(prefix="retro-chaos-")
    rng = random.Random(seed)
    oracle = Oracle()
    cluster = Cluster(folder, rng, oracle.wrong)
    if not cluster.small_disks:
        print("no disk can be mounted here: none is filled")
    load = Load(cluster, oracle, seed)
    kinds = disturb(cluster, load, oracle, rng, seconds)
    load.stop()
    check_end(cluster, load, oracle)
    cluster.stop()
    print(json.dumps({"seed": seed, "seconds": seconds, "faults": kinds, "documents": len(oracle.possible),
                      "calls": dict(sorted(oracle.counts.items())), "wrong": len(oracle.faults)}, indent=1))
    if oracle.faults:
        print(f"the logs are kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if oracle.faults else 0


if __name__ == "__main__":
    sys.exit(main())
