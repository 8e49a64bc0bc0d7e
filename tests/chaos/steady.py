"""The steady run: hours of a load that the cluster carries easily. Memory must stay as it is; latencies are printed, and whoever knows what
else the machine did judges them. `stopped_s` is how long it was put aside."""

import json
import statistics
import threading
import time

from awake import CLOCK

IDS_A_WRITER = 500
PAUSES_S = {"write": 1, "ingest": 10, "read": 0.5, "search": 0.25, "generate": 2}  # of each worker
LOOK_S = 0.2
ROW_S = 60
GROWTH_SHARE_MAX = 0.05  # from the second quarter of the run to the last, beside GROWTH_MIB_MAX
GROWTH_MIB_MAX = 8


def resident_mib(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) / 1024


def percentile(times, share):
    return round(1000 * sorted(times)[int(share * (len(times) - 1))], 1)


class Minutes:
    def __init__(self, cluster, oracle):
        self.cluster, self.oracle = cluster, oracle
        self.lock = threading.Lock()
        self.times = {}

    def observe(self, what, seconds):
        with self.lock:
            self.times.setdefault(what, []).append(seconds)

    def row(self, minute):
        with self.lock:
            times, self.times = self.times, {}
        processes = {name: service.process for name, service in self.cluster.services.items()}
        for name, process in processes.items():
            if process.poll() is not None:
                self.oracle.wrong(f"{name} ended by itself with {process.returncode}")
        return {"minute": minute, "stopped_s": round(CLOCK.stopped, 1),
                "resident_mib": {name: round(resident_mib(p), 1) for name, p in processes.items() if p.poll() is None},
                "calls": {what: len(of) for what, of in sorted(times.items())},
                "p50_ms": {what: percentile(of, 0.5) for what, of in sorted(times.items())},
                "p99_ms": {what: percentile(of, 0.99) for what, of in sorted(times.items())}}

    def watch(self, load, seconds):
        """Prints a row a minute; how much each process has grown."""
        rows, begin = [], time.monotonic()
        while time.monotonic() < begin + seconds:
            time.sleep(LOOK_S)
            for what in load.hung():
                self.oracle.wrong(f"hung: {what}")
            if time.monotonic() >= begin + ROW_S * (len(rows) + 1):
                rows.append(self.row(len(rows) + 1))
                print(json.dumps(rows[-1]), flush=True)
        return self.growth([row["resident_mib"] for row in rows])

    def growth(self, rows):
        quarter = len(rows) // 4
        if quarter == 0:
            return {}
        before, after = rows[quarter:2 * quarter], rows[-quarter:]
        grown = {}
        for name in sorted(set.intersection(*map(set, rows))):
            was = statistics.median(row[name] for row in before)
            grown[name] = round(statistics.median(row[name] for row in after) - was, 1)
            if grown[name] > GROWTH_MIB_MAX + GROWTH_SHARE_MAX * was:
                self.oracle.wrong(f"the memory of {name} grew by {grown[name]} MiB")
        return grown
