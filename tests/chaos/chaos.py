"""The fault run; see run.sh. Exit code 1 if anything acknowledged is lost or wrong, a call hung, or an error is not a documented one."""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time

import harness
from awake import awake_s
from cluster import EMBEDDER, REPLICAS, Cluster
from load import Load, Oracle
from rolling import restart_all
from steady import IDS_A_WRITER, PAUSES_S, Minutes

KINDS = ("SIGKILL", "SIGTERM", "stopped", "expired", "late", "cut off", "full", "promote", "down")
PAUSE_S = (0.3, 3)  # between two faults
REVIVED = 0.7  # how often what has ended is started after a fault
RECOVERY_S = 60
# For all the faults: else a cluster that refuses everything would pass.
ANSWERED = ("delete OK", "final get OK", "generate OK", "get OK", "ingest OK", "search OK", "search for what is known", "upsert OK")
ANSWERED_LEAST = 3


def disturb(cluster, load, oracle, rng, seconds):
    """How many faults of each kind there were."""
    kinds = {}
    begin = awake_s()
    while awake_s() < begin + seconds:
        time.sleep(rng.uniform(*PAUSE_S))
        what = cluster.fault()
        print(f"{awake_s() - begin:7.1f} s  {what}", flush=True)
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
    for what in ANSWERED:
        times = oracle.counts.get(what, 0)
        if times < ANSWERED_LEAST:
            oracle.wrong(f"only {times} times: {what}")
    says = cluster.verify()
    for shard in set(REPLICAS.values()):
        if len({says[name] for name in REPLICAS if REPLICAS[name] == shard}) != 1:
            oracle.wrong(f"the replicas of shard {shard} differ: {says}")


def main():
    parser = argparse.ArgumentParser(prog="run.sh")
    parser.add_argument("seconds", type=float, nargs="?", default=60)
    parser.add_argument("seed", type=int, nargs="?", default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--steady", action="store_true", help="no faults and a modest load; each minute a line of memory and latencies")
    parser.add_argument("--rolling", action="store_true", help="no faults, but every process is restarted in turn, while clients read and write")
    parser.add_argument("--embedder", default=EMBEDDER, help="the routers'")
    args = parser.parse_args()
    kind = "rolling restart" if args.rolling else f"{'steady' if args.steady else 'fault'} run of {args.seconds:.0f} s"
    print(f"{kind}, seed {args.seed}", flush=True)
    folder = tempfile.mkdtemp(prefix="retro-chaos-")
    rng = random.Random(args.seed)
    oracle = Oracle()
    cluster = Cluster(folder, rng, oracle.wrong, args.embedder, faults=not (args.steady or args.rolling))
    if args.rolling:
        result = {"seed": args.seed, "calls": restart_all(cluster, oracle)}
        return finish(cluster, oracle, folder, result)
    result = {"seed": args.seed, "seconds": args.seconds}
    if args.steady:
        minutes = Minutes(cluster, oracle)
        load = Load(cluster, oracle, args.seed, IDS_A_WRITER, PAUSES_S, minutes.observe)
        result["memory_growth_mib"] = minutes.watch(load, args.seconds)
    else:
        if not cluster.small_disks:
            print("no disk can be mounted here: none is filled")
        load = Load(cluster, oracle, args.seed)
        result["faults"] = disturb(cluster, load, oracle, rng, args.seconds)
    load.stop()
    check_end(cluster, load, oracle)
    return finish(cluster, oracle, folder, result | {"documents": len(oracle.possible), "calls": dict(sorted(oracle.counts.items()))})


def finish(cluster, oracle, folder, result):
    """The exit code."""
    cluster.stop()
    print(json.dumps(result | {"wrong": len(oracle.faults)}, indent=1))
    if oracle.faults:
        print(f"the logs are kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if oracle.faults else 0


if __name__ == "__main__":
    sys.exit(main())
