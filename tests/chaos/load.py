"""The load of the fault run, and the oracle that knows what each answer may be."""

import os
import random
import re
import threading
import time

import grpc
from google.rpc import error_details_pb2, status_pb2
from retro.generator.v1 import generator_pb2, generator_pb2_grpc
from retro.retriever.v1 import document_pb2, retriever_pb2, retriever_pb2_grpc

import harness
from awake import awake_s
from cluster import GENERATORS, ROUTERS

IDS_A_WRITER = 40  # of the fault run: few, so that each is written often
WORKERS = {"write": 3, "ingest": 1, "read": 2, "search": 2, "generate": 1}
CALL_S = 8
HUNG_S = 15  # past a deadline
UNKNOWN_S = 20  # in which a write of unknown outcome may still happen
DELETED = None
NEAR = 1e-3  # a distance that is none but for half precision
TOKENS = 8
ON_THE_WAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
# Reasons after which it is known that nothing was done.
NOTHING_DONE = {"SHARD_UNAVAILABLE", "STALE_EPOCH", "READ_ONLY", "SHUTTING_DOWN", "CLUSTER_MISMATCH", "EMBEDDER_MISMATCH"}


def documented_reasons():
    with open(os.path.join(harness.ROOT, "docs", "errors.md"), encoding="utf-8") as f:
        return set(re.findall(r"^\| `([A-Z_]+)` \|", f.read(), re.M))


class Failure(str):
    """The documented reason of what failed, "" for what never reached a service; `says` is the message."""

    def __new__(cls, reason, says):
        failure = super().__new__(cls, reason)
        failure.says = says
        return failure


def failure_of(error):
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return Failure(info.reason, error.details())
    return Failure("", error.details())


class Oracle:
    """For each id the versions that it may be at, and the token of the last that was acknowledged. Only one writer has an id. A write of
    unknown outcome may still happen for a while, also after one that begins later."""

    def __init__(self):
        self.lock = threading.Lock()
        self.possible, self.unknown, self.tokens, self.faults, self.counts = {}, {}, {}, [], {}
        self.failures = {}  # of each version that was not acknowledged, what was said
        self.reads = []  # that are under way

    def wrong(self, what):
        with self.lock:
            self.faults.append(what)
            print("WRONG:", what, flush=True)

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def now(self, document_id):
        with self.lock:
            return set(self.possible.get(document_id, {DELETED})), self.tokens.get(document_id, b"")

    def set_possible(self, document_id, versions):
        """With the lock held."""
        self.possible[document_id] = versions
        for read in self.reads:
            if read.document_id == document_id:
                read.possible |= versions

    def forbid(self, document_id, version):
        """With the lock held: it was never there, whatever was thought possible."""
        self.possible[document_id] = self.possible[document_id] - {version}
        for read in self.reads:
            if read.document_id == document_id:
                read.possible.discard(version)


class Read:
    """One read of one document: what was possible at any time between its beginning and its end, as writes go on beside a slow one."""

    def __init__(self, oracle, document_id):
        self.oracle, self.document_id = oracle, document_id

    def __enter__(self):
        with self.oracle.lock:
            self.possible = set(self.oracle.possible.get(self.document_id, {DELETED}))
            self.token = self.oracle.tokens.get(self.document_id, b"")
            self.oracle.reads.append(self)
        return self

    def __exit__(self, *_):
        with self.oracle.lock:
            self.oracle.reads.remove(self)


class Write:
    """One write of one document, from before it is sent."""

    def __init__(self, oracle, document_id, version):
        self.oracle, self.document_id, self.version = oracle, document_id, version
        self.begin = awake_s()
        with oracle.lock:
            self.before = oracle.possible.setdefault(document_id, {DELETED})
            self.unknown = oracle.unknown.setdefault(document_id, {})
            oracle.set_possible(document_id, self.before | {version})
            self.unknown[version] = float("inf")

    def acknowledge(self, token):
        with self.oracle.lock:
            late = {version for version, until in self.unknown.items() if until > self.begin and version != self.version}
            self.oracle.set_possible(self.document_id, late | {self.version})
            self.oracle.tokens[self.document_id] = token
            self.unknown.pop(self.version)

    def fail(self, failure):
        with self.oracle.lock:
            self.oracle.failures[self.document_id, self.version] = f"{failure} {failure.says}"
            self.unknown[self.version] = awake_s() + UNKNOWN_S
            if failure in NOTHING_DONE and self.version not in self.before:
                self.oracle.forbid(self.document_id, self.version)
                self.unknown.pop(self.version)


def text_of(document_id, version):
    """A function of its version; one of ten has several chunks."""
    return f"{document_id} is at version {version}. " + "Some words follow here. " * (60 if version % 10 == 9 else version % 8)


class Load:
    """Each kind of work goes on as soon as it has its answer, or after as many seconds as `pauses` has for it. `observe` is told of each
    call that went well how many seconds it took."""

    def __init__(self, cluster, oracle, seed, ids=IDS_A_WRITER, pauses=None, observe=lambda what, seconds: None):
        self.oracle, self.seed, self.ids, self.pauses, self.observe = oracle, seed, ids, pauses or {}, observe
        self.reasons = documented_reasons()
        self.stopping = threading.Event()
        self.under_way = {}
        self.retrievers = [retriever_pb2_grpc.RetrieverServiceStub(cluster.channel(name)) for name in ROUTERS]
        self.generators = [generator_pb2_grpc.GeneratorServiceStub(cluster.channel(name)) for name in GENERATORS]
        self.threads = [threading.Thread(target=self.loop, args=(getattr(self, work), number), daemon=True)
                        for work, count in WORKERS.items() for number in range(count)]
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
            if work.__name__ in self.pauses:
                self.stopping.wait(self.pauses[work.__name__])

    # -------------------------------------------------------------------------------- calls
    def call(self, what, begin):
        """What `begin` gives, or the reason why there is none."""
        me = threading.get_ident()
        since = awake_s()
        self.under_way[me] = (what, since)
        try:
            answer = begin()
            self.oracle.count(f"{what} OK")
            self.observe(what, awake_s() - since)
            return answer, None
        except grpc.RpcError as error:
            return None, self.judge_error(what, error)
        finally:
            self.under_way.pop(me, None)

    def judge_error(self, what, error):
        reason = failure_of(error)
        self.oracle.count(f"{what} {reason or error.code().name + ' on the way'}")
        on_the_way = reason == "" and error.code() in ON_THE_WAY
        if (reason not in self.reasons and not on_the_way) or reason == "INTERNAL":
            self.oracle.wrong(f"{what}: no documented error: {error.code().name} {reason} {error.details()}")
        return reason

    def judge_item(self, what, error):
        self.oracle.count(f"{what} item {error.reason}")
        if error.reason not in self.reasons or error.reason == "INTERNAL":
            self.oracle.wrong(f"{what}: no documented error: {error}")
        return Failure(error.reason, error.message)

    def hung(self):
        now = awake_s()
        return [what for what, since in list(self.under_way.values()) if now - since > CALL_S + HUNG_S]

    # -------------------------------------------------------------------------------- writing
    def write(self, rng, number, version):
        document_id = f"w{number}-{rng.randrange(self.ids)}"
        stub = self.retrievers[number % len(ROUTERS)]
        deletes = rng.random() < 0.2
        write = Write(self.oracle, document_id, DELETED if deletes else version)
        if deletes:
            request = retriever_pb2.DeleteDocumentsRequest(document_ids=[document_id])
            answer, reason = self.call("delete", lambda: stub.DeleteDocuments(request, timeout=CALL_S))
        else:
            request = retriever_pb2.UpsertDocumentsRequest(writes=[write_of(document_id, version)])
            answer, reason = self.call("upsert", lambda: stub.UpsertDocuments(request, timeout=CALL_S))
            if answer is not None and answer.results[0].HasField("error"):
                answer, reason = None, self.judge_item("upsert", answer.results[0].error)
        if answer is not None:
            write.acknowledge(answer.consistency_token)
        else:
            write.fail(reason)
            time.sleep(0.05)

    def ingest(self, rng, number, version):
        """A stream of several documents, each acknowledged by itself."""
        ids = [f"i{number}-{i}" for i in rng.sample(range(self.ids), rng.randint(1, 20))]
        writes = {i: Write(self.oracle, document_id, version) for i, document_id in enumerate(ids)}
        stub = rng.choice(self.retrievers)
        requests = [retriever_pb2.IngestRequest(sequence=i, write=write_of(document_id, version)) for i, document_id in enumerate(ids)]

        def run():
            for answer in stub.Ingest(iter(requests), timeout=CALL_S):
                write = writes.pop(answer.sequence)
                if answer.result.HasField("error"):
                    write.fail(self.judge_item("ingest", answer.result.error))
                else:
                    write.acknowledge(answer.consistency_token)
        _, reason = self.call("ingest", run)
        if writes and reason is None:
            self.oracle.wrong(f"an ingest stream ended well with {len(writes)} of {len(ids)} documents unanswered")
        for write in writes.values():
            write.fail(Failure("", f"the stream ended with {reason!r}"))
        time.sleep(0.1)

    # -------------------------------------------------------------------------------- reading
    def any_id(self, rng):
        kind, count = rng.choice((("w", WORKERS["write"]), ("i", WORKERS["ingest"])))
        return f"{kind}{rng.randrange(count)}-{rng.randrange(self.ids)}"

    def read(self, rng, number, version):
        self.read_one("get", self.any_id(rng), rng.choice(self.retrievers))

    def read_one(self, what, document_id, stub):
        """None if it was answered, and right or wrong; else why not."""
        with Read(self.oracle, document_id) as read:
            request = retriever_pb2.GetDocumentRequest(document_id=document_id, consistency_token=read.token)
            answer, reason = self.call(what, lambda: stub.GetDocument(request, timeout=CALL_S))
        if answer is None and reason != "NOT_FOUND":
            time.sleep(0.05)
            return reason or "on the way"
        found = DELETED if answer is None else answer.document.text
        if found not in {DELETED if version is DELETED else text_of(document_id, version) for version in read.possible}:
            says = "not there" if found is DELETED else found[:60]
            of = re.search(r" is at version (\d+)\.", found or "")
            why = self.oracle.failures.get((document_id, int(of[1]) if of else DELETED), "nothing")
            self.oracle.wrong(f"{what} {document_id}: {says!r}, may be at {sorted(map(str, read.possible))}; of this its writer was told: {why}")
        return None

    def search(self, rng, number, version):
        """Exact, for the text of a document that is known to be there: it must be the nearest."""
        document_id = self.any_id(rng)
        before, token = self.oracle.now(document_id)
        known = next(iter(before)) if len(before) == 1 else DELETED
        query = text_of(document_id, known or 0)
        request = retriever_pb2.SearchRequest(queries=[retriever_pb2.Query(text=query)], k=3, consistency_token=token,
                                              effort=retriever_pb2.Effort(exact=True))
        stub = rng.choice(self.retrievers)
        answer, _ = self.call("search", lambda: stub.Search(request, timeout=CALL_S))
        if answer is None:
            time.sleep(0.05)
            return
        if len(answer.results) != 1 or answer.coverage.shards_answered != 2:
            self.oracle.wrong(f"a search of one query in two shards: {len(answer.results)} results, {answer.coverage}")
            return
        for neighbour in answer.results[0].neighbours:
            if not re.match(rf"{neighbour.document_id} is at version |.*[Ss]ome words ", neighbour.chunk.text):
                self.oracle.wrong(f"a search finds in {neighbour.document_id} what nobody wrote: {neighbour.chunk.text[:80]!r}")
        if known is DELETED or known % 10 == 9 or self.oracle.now(document_id)[0] != before:
            return
        self.oracle.count("search for what is known")
        nearest = answer.results[0].neighbours[0] if answer.results[0].neighbours else None
        if nearest is None or nearest.document_id != document_id or nearest.chunk.text != query or nearest.distance > NEAR:
            self.oracle.wrong(f"{query[:60]!r} is not found: {nearest}")

    def generate(self, rng, number, version):
        request = generator_pb2.GenerateRequest(text="What is at version two?", max_tokens=TOKENS)
        stub = rng.choice(self.generators)
        events, _ = self.call("generate", lambda: list(stub.Generate(request, timeout=CALL_S)))
        if events is not None and not any(event.HasField("finish") for event in events):
            self.oracle.wrong(f"a generation of {len(events)} events ended well and without a word why")
        time.sleep(0.1)

    # -------------------------------------------------------------------------------- the end
    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(CALL_S + HUNG_S)
            if thread.is_alive():
                self.oracle.wrong("a call hung")

    def read_all(self, seconds):
        """Everything, once all is well again: within so long each must be answered."""
        end = awake_s() + seconds
        for document_id in sorted(self.oracle.possible):
            while (reason := self.read_one("final get", document_id, self.retrievers[0])) is not None:
                if awake_s() > end:
                    self.oracle.wrong(f"not well again after {seconds} s: {reason}")
                    return


def write_of(document_id, version):
    return retriever_pb2.DocumentWrite(document=document_pb2.Document(id=document_id, text=text_of(document_id, version)))
