"""The fault run; see run.sh. Exit code 1 if anything acknowledged is lost or wrong, a call hung, or an error is not a documented one."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import grpc
from google.rpc import error_details_pb2, status_pb2
from retro.generator.v1 import generator_pb2, generator_pb2_grpc
from retro.retriever.v1 import document_pb2, retriever_pb2, retriever_pb2_grpc

import harness

REPLICAS = {"0a": 0, "0b": 0, "1a": 1, "1b": 1}
IDS_A_WRITER = 40
WRITERS, READERS = 4, 3
CALL_S = 8
HUNG_S = 15  # past a deadline
RECOVERY_S = 60
DELETED = None
# Reasons after which it is known that nothing was done.
NOTHING_DONE = {"SHARD_UNAVAILABLE", "STALE_EPOCH", "READ_ONLY", "QUEUE_FULL", "SHUTTING_DOWN", "CLUSTER_MISMATCH"}


def documented_reasons():
    with open(os.path.join(harness.ROOT, "docs", "errors.md"), encoding="utf-8") as f:
        return set(re.findall(r"^\| `([A-Z_]+)` \|", f.read(), re.M))


def reason_of(error):
    """The documented reason of a failed call; "" for one that never reached a service."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return ""


class Cluster:
    """The processes, and what is done to them."""

    def __init__(self, folder, rng):
        self.folder, self.rng = folder, rng
        self.ports = {name: harness.free_port() for name in (*REPLICAS, "router", "generator")}
        self.services, self.lock = {}, threading.Lock()
        shards = []
        for shard, slots in enumerate(([0, 2047], [2048, 4095])):
            names = [name for name, of in REPLICAS.items() if of == shard]
            shards.append({"slots": slots, "epoch": 1, "primary": names[0],
                           "replicas": [{"name": name, "address": f"127.0.0.1:{self.ports[name]}"} for name in names]})
        self.file = os.path.join(folder, "cluster.json")
        with open(self.file, "w", encoding="utf-8") as f:
            json.dump({"version": 1, "cluster": "chaos", "store_id": "%032x" % rng.getrandbits(128), "shards": shards}, f)
        self.model = os.path.join(folder, "model")
        subprocess.run([harness.program("retro-model"), "init", "--preset", "retro-demo", "--tokenizer", harness.TOKENIZER, "--seed", "1",
                        "--out", self.model], check=True, stdout=subprocess.DEVNULL)
        for name in self.ports:
            self.start(name)

    def arguments(self, name):
        if name == "router":
            return "retro-retriever", ["--role", "router", "--cluster-file", self.file, "--embedder", "hash:64", "--tokenizer", harness.TOKENIZER]
        if name == "generator":
            return "retro-generator", ["--model", self.model, "--retriever", self.address("router"), "--dtype", "fp32", "--threads", "1"]
        return "retro-shard", ["--data", os.path.join(self.folder, name), "--cluster-file", self.file, "--shard", str(REPLICAS[name]),
                               "--replica", name]

    def address(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def start(self, name):
        program, arguments = self.arguments(name)
        self.services[name] = harness.Service(program, [*arguments, "--log-level", "warning"], self.folder, self.ports[name])

    def revive(self):
        """Starts what has ended; a service that ends by itself is told."""
        with self.lock:
            for name, service in self.services.items():
                if service.process.poll() is not None:
                    self.start(name)

    def state(self):
        with open(self.file, encoding="utf-8") as f:
            return json.load(f)

    def fault(self):
        """One, and what it was."""
        name = self.rng.choice(list(self.ports))
        kind = self.rng.choice(("kill", "kill", "stop", "promote", "term"))
        with self.lock:
            process = self.services[name].process
            if kind == "promote":
                return self.promote()
            if process.poll() is not None:
                return f"{name} is down already"
            if kind == "stop":
                seconds = self.rng.uniform(0.2, 4)
                process.send_signal(signal.SIGSTOP)
                threading.Timer(seconds, process.send_signal, [signal.SIGCONT]).start()
                return f"stopped {name} for {seconds:.1f} s"
            process.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            process.wait(60)
            return f"{kind} {name}"

    def promote(self):
        number = self.rng.randrange(2)
        shard = self.state()["shards"][number]
        others = [name for name in shard.get("in_sync", []) if name != shard["primary"]]
        if not others:
            return f"nobody of shard {number} to promote"
        run = subprocess.run([harness.program("retro"), "admin", "promote", "--retriever", self.address("router"), "--shard", str(number),
                              "--replica", others[0], "--timeout", "5"], capture_output=True, text=True)
        return f"promote {others[0]}: {run.returncode} {run.stderr.strip()}"

    def stop(self):
        for service in self.services.values():
            service.process.send_signal(signal.SIGCONT)
            service.stop(signal.SIGKILL)


class Oracle:
    """For each id the versions that it may be at. Only one writer has an id."""

    def __init__(self):
        self.lock = threading.Lock()
        self.possible, self.token, self.faults, self.counts = {}, b"", [], {}

    def wrong(self, what):
        with self.lock:
            self.faults.append(what)
            print("WRONG:", what, flush=True)

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1


def text_of(document_id, version):
    return f"{document_id} is at version {version}. " + "Some words follow here. " * (version % 40)


class Load:
    def __init__(self, cluster, oracle, seed):
        self.cluster, self.oracle, self.seed = cluster, oracle, seed
        self.reasons = documented_reasons()
        self.stopping = threading.Event()
        self.under_way = {}
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
        self.retriever = retriever_pb2_grpc.RetrieverServiceStub(grpc.insecure_channel(cluster.address("router"), options))
        self.generator = generator_pb2_grpc.GeneratorServiceStub(grpc.insecure_channel(cluster.address("generator"), options))
        self.threads = [threading.Thread(target=self.loop, args=(work, number), daemon=True)
                        for work, count in ((self.write, WRITERS), (self.read, READERS), (self.search, 1), (self.generate, 1))
                        for number in range(count)]
        for thread in self.threads:
            thread.start()

    def loop(self, work, number):
        rng = random.Random(f"{self.seed} {work.__name__} {number}")
        version = 0
        while not self.stopping.is_set():
            version += 1
            try:
                work(rng, number, version)
            except Exception as error:  # of ours: a thread that ends in silence would hide everything
                self.oracle.wrong(f"{work.__name__}: {error!r}")

    def call(self, what, method, request):
        """The answer, or the reason why there is none."""
        me = threading.get_ident()
        self.under_way[me] = (what, time.monotonic())
        try:
            answer = method(request, timeout=CALL_S)
            answer = list(answer) if hasattr(answer, "__next__") else answer
            self.oracle.count(f"{what} OK")
            return answer, None
        except grpc.RpcError as error:
            reason = reason_of(error)
            self.oracle.count(f"{what} {reason or error.code().name + ' on the way'}")
            transport = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
            if reason not in self.reasons and not (reason == "" and transport):
                self.oracle.wrong(f"{what}: no documented error: {error.code().name} {reason} {error.details()}")
            if reason == "INTERNAL":
                self.oracle.wrong(f"{what}: INTERNAL {error.details()}")
            return None, reason
        finally:
            self.under_way.pop(me, None)

    def hung(self):
        now = time.monotonic()
        return [what for what, since in list(self.under_way.values()) if now - since > CALL_S + HUNG_S]

    def settle(self, document_id, versions, token=b""):
        with self.oracle.lock:
            self.oracle.possible[document_id] = versions
            if token:
                self.oracle.token = token

    def write(self, rng, number, version):
        document_id = f"w{number}-{rng.randrange(IDS_A_WRITER)}"
        with self.oracle.lock:
            before = set(self.oracle.possible.get(document_id, {DELETED}))
        after = DELETED if rng.random() < 0.2 else version
        self.settle(document_id, before | {after})
        if after is DELETED:
            answer, reason = self.call("delete", self.retriever.DeleteDocuments, retriever_pb2.DeleteDocumentsRequest(document_ids=[document_id]))
        else:
            document = document_pb2.Document(id=document_id, text=text_of(document_id, version))
            answer, reason = self.call("upsert", self.retriever.UpsertDocuments, retriever_pb2.UpsertDocumentsRequest(
                writes=[retriever_pb2.DocumentWrite(document=document)]))
            if answer is not None and answer.results[0].HasField("error"):
                reason = answer.results[0].error.reason
                self.oracle.count(f"upsert item {reason}")
                if reason not in self.reasons or reason == "INTERNAL":
                    self.oracle.wrong(f"upsert: {answer.results[0].error}")
                answer = None
        if answer is not None:
            self.settle(document_id, {after}, answer.consistency_token)
        elif reason in NOTHING_DONE:
            self.settle(document_id, before)
            time.sleep(0.05)

    def read(self, rng, number, version):
        document_id = f"w{rng.randrange(WRITERS)}-{rng.randrange(IDS_A_WRITER)}"
        with self.oracle.lock:
            before, token = set(self.oracle.possible.get(document_id, {DELETED})), self.oracle.token
        answer, reason = self.call("get", self.retriever.GetDocument, retriever_pb2.GetDocumentRequest(
            document_id=document_id, consistency_token=token))
        with self.oracle.lock:
            possible = before | set(self.oracle.possible.get(document_id, {DELETED}))
        if answer is None and reason != "NOT_FOUND":
            return
        self.judge(document_id, answer, possible)

    def judge(self, document_id, answer, possible):
        found = DELETED if answer is None else answer.document.text
        if found not in {DELETED if version is DELETED else text_of(document_id, version) for version in possible}:
            self.oracle.wrong(f"{document_id} is {'not there' if found is DELETED else found[:60]!r}, it may be at {sorted(map(str, possible))}")

    def search(self, rng, number, version):
        with self.oracle.lock:
            live = [(i, next(iter(v))) for i, v in self.oracle.possible.items() if len(v) == 1 and DELETED not in v]
        query = text_of(*rng.choice(live)) if live else "anything"
        answer, _ = self.call("search", self.retriever.Search, retriever_pb2.SearchRequest(queries=[retriever_pb2.Query(text=query)]))
        if answer is not None and len(answer.results) != 1:
            self.oracle.wrong("a search of one query has no one result")

    def generate(self, rng, number, version):
        self.call("generate", self.generator.Generate, generator_pb2.GenerateRequest(text="What is at version two?", max_tokens=8))
        time.sleep(0.1)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(CALL_S + HUNG_S)
        for thread in self.threads:
            if thread.is_alive():
                self.oracle.wrong("a call hung")

    def check_all(self):
        """Everything, once all is well again: within so long each must be answered."""
        end = time.monotonic() + RECOVERY_S
        for document_id, possible in sorted(self.oracle.possible.items()):
            while True:
                answer, reason = self.call("final get", self.retriever.GetDocument, retriever_pb2.GetDocumentRequest(
                    document_id=document_id, consistency_token=self.oracle.token))
                if answer is not None or reason == "NOT_FOUND":
                    self.judge(document_id, answer, possible)
                    break
                if time.monotonic() > end:
                    return self.oracle.wrong(f"not well again after {RECOVERY_S} s: {reason}")
                time.sleep(0.2)


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    print(f"fault run of {seconds:.0f} s, seed {seed}", flush=True)
    folder = tempfile.mkdtemp(prefix="retro-chaos-")
    rng = random.Random(seed)
    oracle = Oracle()
    cluster = Cluster(folder, rng)
    for service in cluster.services.values():
        harness.wait_for(f"port {service.port}", lambda port=service.port: reachable(port))
    load = Load(cluster, oracle, seed)
    end = time.monotonic() + seconds
    faults = 0
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.3, 3))
        print(f"{seconds - (end - time.monotonic()):7.1f} s  {cluster.fault()}", flush=True)
        faults += 1
        if rng.random() < 0.7:
            cluster.revive()
        for what in load.hung():
            oracle.wrong(f"hung: {what}")
    load.stop()
    time.sleep(4)  # what is stopped goes on
    cluster.revive()
    load.check_all()
    cluster.stop()
    print(json.dumps({"seed": seed, "faults": faults, "documents": len(oracle.possible), "calls": dict(sorted(oracle.counts.items())),
                      "wrong": len(oracle.faults)}, indent=1))
    if oracle.faults:
        print(f"the folder is kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if oracle.faults else 0


def reachable(port):
    try:
        grpc.channel_ready_future(grpc.insecure_channel(f"127.0.0.1:{port}")).result(0.5)
        return True
    except grpc.FutureTimeoutError:
        return False


if __name__ == "__main__":
    sys.exit(main())
