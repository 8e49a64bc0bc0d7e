"""The rolling restart, as docs/runbooks.md has an upgrade: each process in turn is asked to end, must do so with 0, and is started again once it
has, while clients search, read documents and generate through the services' names, with deploy/service-config.json, and one writes, and repeats
what is UNAVAILABLE or was cancelled. No call may fail."""

import itertools
import os
import signal
import subprocess
import threading
import time

import grpc
from retro.generator.v1 import generator_pb2, generator_pb2_grpc
from retro.retriever.v1 import document_pb2, retriever_pb2, retriever_pb2_grpc

import harness
from cluster import GENERATORS, REPLICAS, ROUTERS

DOCUMENTS = 40
CALL_S = 30
CALLS_BETWEEN = {"get": 50, "search": 50, "write": 10, "generate": 3}  # before the next process has its turn
REPEATED = {grpc.StatusCode.UNAVAILABLE.value[0], grpc.StatusCode.CANCELLED.value[0]}
PAUSE_S = 0.05  # before a write is repeated
ORDER = ("0b", "1b", "0a", "1a", *ROUTERS, *GENERATORS)  # of a shard the follower first


class Clients:
    """A thread for each kind of call."""

    def __init__(self, cluster, oracle):
        with open(os.path.join(harness.ROOT, "deploy", "service-config.json"), encoding="utf-8") as f:
            options = [("grpc.service_config", f.read())]
        channels = {name: grpc.secure_channel(f"127.0.0.1:{cluster.lines[name]}", cluster.credentials(), options)
                    for name in ("routers", "generators")}
        retriever = retriever_pb2_grpc.RetrieverServiceStub(channels["routers"])
        generator = generator_pb2_grpc.GeneratorServiceStub(channels["generators"])
        self.retriever, self.written = retriever, {}
        self.versions = itertools.count(1)
        document = retriever_pb2.GetDocumentRequest(document_id="d7")
        search = retriever_pb2.SearchRequest(queries=[retriever_pb2.Query(text=text_of(7))], k=3)
        generate = generator_pb2.GenerateRequest(text=text_of(7), max_tokens=8)
        self.kinds = {"get": lambda: retriever.GetDocument(document, timeout=CALL_S).document.text == text_of(7),
                      "write": self.write, "search": lambda: retriever.Search(search, timeout=CALL_S).results[0].neighbours[0].document_id == "d7",
                      "generate": lambda: any(event.HasField("finish") for event in generator.Generate(generate, timeout=CALL_S))}
        self.oracle, self.stopping = oracle, threading.Event()
        self.done = dict.fromkeys(self.kinds, 0)
        self.threads = [threading.Thread(target=self.loop, args=(kind,), daemon=True) for kind in self.kinds]
        for thread in self.threads:
            thread.start()

    def loop(self, kind):
        while not self.stopping.is_set():
            try:
                if not self.kinds[kind]():
                    self.oracle.wrong(f"{kind}: another answer than was expected")
            except grpc.RpcError as error:
                self.oracle.wrong(f"{kind} failed: {error.code().name} {error.details()}")
            self.done[kind] += 1

    def write(self):
        """Another title: what is found stays as it is."""
        number = next(self.versions)
        document = document_pb2.Document(id=f"d{number % DOCUMENTS}", text=text_of(number % DOCUMENTS), title=f"title {number}")
        request = retriever_pb2.UpsertDocumentsRequest(writes=[retriever_pb2.DocumentWrite(document=document)])
        end = time.monotonic() + CALL_S
        while True:
            try:
                error = self.retriever.UpsertDocuments(request, timeout=CALL_S).results[0].error
                code, says = error.code, error.message
            except grpc.RpcError as failure:
                code, says = failure.code().value[0], failure.details()
            if code == 0:
                self.written[document.id] = document.title
                return True
            if code not in REPEATED or time.monotonic() > end:
                self.oracle.wrong(f"a write failed: {code} {says}")
                return True
            time.sleep(PAUSE_S)

    def check_written(self):
        for document_id, title in self.written.items():
            request = retriever_pb2.GetDocumentRequest(document_id=document_id)
            found = self.retriever.GetDocument(request, timeout=CALL_S).document.title
            if found != title:
                self.oracle.wrong(f"{document_id} has {found!r}, acknowledged last was {title!r}")

    def go_on(self):
        """Waits for some more calls of each kind."""
        ends = {kind: done + CALLS_BETWEEN[kind] for kind, done in self.done.items()}
        harness.wait_for("calls go on", lambda: all(self.done[kind] >= end for kind, end in ends.items()))

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(2 * CALL_S)


def text_of(number):
    return f"document number {number} of those that are read while everything is restarted"


def is_ready(cluster, name):
    """As the probes of deploy/k8s ask."""
    if name in REPLICAS:
        run = retro(cluster, "admin", "replicas", "--retriever", cluster.address("router0"))
        return cluster.all_in_sync() and run.returncode == 0 and "BEHIND" not in run.stdout and "UNREACHABLE" not in run.stdout
    service = "retriever" if name in ROUTERS else "generator"
    return retro(cluster, "health", service, f"--{service}", cluster.address(name)).returncode == 0


def give_up_lead(cluster, oracle, name):
    """A primary's, to the other replica of its shard."""
    leads = name in REPLICAS and cluster.state()["shards"][REPLICAS[name]]["primary"] == name
    if not leads:
        return
    (other,) = (replica for replica, shard in REPLICAS.items() if shard == REPLICAS[name] and replica != name)
    run = retro(cluster, "admin", "promote", "--retriever", cluster.address("router0"), "--shard", str(REPLICAS[name]), "--replica", other)
    print(f"promote {other}", flush=True)
    if run.returncode != 0:
        oracle.wrong(f"{other} was not promoted: {run.stderr.strip()}")
    harness.wait_for("all in sync", cluster.all_in_sync)


def retro(cluster, *arguments):
    return subprocess.run([harness.program("retro"), *arguments, "--tls-ca", cluster.certificates.path("ca.pem")], capture_output=True,
                          text=True, check=False)


def restart_all(cluster, oracle):
    """How many calls of each kind there were."""
    writes = [retriever_pb2.DocumentWrite(document=document_pb2.Document(id=f"d{i}", text=text_of(i))) for i in range(DOCUMENTS)]
    for name in (*ROUTERS, *GENERATORS):
        harness.wait_for(f"{name} is ready", lambda: is_ready(cluster, name))
    retriever_pb2_grpc.RetrieverServiceStub(cluster.channel("router0")).UpsertDocuments(
        retriever_pb2.UpsertDocumentsRequest(writes=writes), timeout=CALL_S)
    clients = Clients(cluster, oracle)
    for name in ORDER:
        clients.go_on()
        give_up_lead(cluster, oracle, name)
        print(cluster.end(name, signal.SIGTERM), flush=True)
        harness.running.discard(cluster.services[name].process)
        clients.go_on()
        cluster.start(name)
        cluster.services[name].await_event("serving")
        harness.wait_for(f"{name} is ready", lambda: is_ready(cluster, name))
    clients.go_on()
    clients.stop()
    clients.check_written()
    return clients.done
