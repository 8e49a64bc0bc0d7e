"""Clients that mean harm, spoken by hand frame by frame, against a live retriever: directly, and through the proxy of deploy/compose with
TLS. Whatever they do, others are served, memory is bounded and the service goes on. docs/security.md says what is only the proxy's doing."""

import contextlib
import hashlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import time
import urllib.request

import harness
from model_folder_test import MODEL_CONFIG

MIB = 1 << 20
MESSAGE_BYTES_MAX = 64 * MIB  # a generator's: 20
REQUEST_BYTES_MAX = 64 * MIB  # --request-bytes-max, as small as it can be
GROWTH_MAX_MIB = 256  # requests and replies as bounded, as much again in the library's buffers, and what the allocator keeps
ARRIVING_BYTES = 1280 * MIB
MOST_OF_A_MESSAGE = 16 * MIB
ARRIVING_GROWTH_MAX_MIB = 768  # twice --request-bytes-max, --ingest-bytes-max, 256 MiB beside them, and what the allocator keeps
HOSTILE_ADDRESS = "127.0.0.2"  # another than the other clients', as the proxy counts by address
HONEST_ADDRESS = "127.0.0.3"
HANDSHAKE_S = 20
GROWING_BYTES = 16 * MIB
CONNECTIONS = 100
SILENT_CONNECTIONS = 300  # more than the proxy lets one address have
CONNECTIONS_OF_AN_ADDRESS = 64  # haproxy.cfg's
HONEST_CALLS = 1000
KEY = "k" * 64  # the proxy wants it; the services behind it, here, do not
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS = 1, 4
CANCEL = 8
WINDOW_MAX = (1 << 31) - 1
WINDOW_FIRST = (1 << 16) - 1  # of a connection
INITIAL_WINDOW = 4
GENERATE = "/retro.generator.v1.GeneratorService/Generate"
SCORE = "/retro.generator.v1.GeneratorService/Score"
SEARCH = "/retro.retriever.v1.RetrieverService/Search"
HEALTH = "/grpc.health.v1.Health/Check"
UPSERT = "/retro.retriever.v1.RetrieverService/UpsertDocuments"
DELETE = "/retro.retriever.v1.RetrieverService/DeleteDocuments"
INGEST = "/retro.retriever.v1.RetrieverService/Ingest"
SHARD_SEARCH = "/retro.shard.v1.ShardService/Search"
SHARD_WRITE = "/retro.shard.v1.ShardService/Write"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 3, 8


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name, value):
    """HPACK: literal, neither indexed nor compressed; up to 126 bytes each."""
    value = value if isinstance(value, bytes) else value.encode()
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value


def call_headers(stream, method, *more, key=KEY):
    fields = ((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "x"), ("content-type", "application/grpc"),
              ("te", "trailers"), ("authorization", "Bearer " + key), *more)
    return frame(HEADERS, END_HEADERS, stream, b"".join(header(*field) for field in fields))


def grpc_message(payload, claimed=None):
    return b"\0" + struct.pack(">I", len(payload) if claimed is None else claimed) + payload


def search_message(k=1000):
    """A SearchRequest of one text."""
    query = harness.protobuf_field(1, b"a lighthouse by the harbour")
    return harness.protobuf_field(2, query) + harness.varint(3 << 3) + harness.varint(k)


def memory_mib(service, kind):
    with open(f"/proc/{service.process.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(kind + ":")) / 1024


def forget_peak(service):
    """VmHWM is VmRSS again."""
    with open(f"/proc/{service.process.pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")


def make_model(test):
    config = test.write("tiny.json", json.dumps(MODEL_CONFIG))
    made = test.run_program(harness.program("retro-model"), "init", "--config", config, "--tokenizer", harness.TOKENIZER, "--out",
                            test.path("model"))
    test.assertEqual(made.code, 0, made)
    return test.path("model")


def start_cluster(test, *shard_flags):
    """A router, at the test's retriever's port, and its only shard."""
    file = test.write_cluster_file("c", 1)
    router = test.start("retro-retriever", ["--role", "router", "--cluster-file", file, "--embedder", "hash:64", "--tokenizer",
                                            harness.TOKENIZER], test.retriever_port)
    prints = router.event("fingerprints")
    with open(file, encoding="utf-8") as f:
        port = int(json.load(f)["shards"][0]["replicas"][0]["address"].rsplit(":", 1)[1])
    shard = test.start("retro-shard", ["--cluster-file", file, "--shard", "0", "--replica", "r0", "--data", test.path("r0"),
                                       "--embedder-fingerprint", prints["embedder"], "--tokenizer-fingerprint", prints["tokenizer"],
                                       "--dimension", prints["dimension"], *shard_flags], port)
    harness.wait_for("the router reads it", lambda: test.retro("stats").code == 0)
    return router, shard


class Hostile:
    """A connection that no library would make."""

    def __init__(self, port, tls=None, address=HOSTILE_ADDRESS):
        self.refused = False
        self.socket = socket.socket()
        self.socket.settimeout(harness.WAIT_S)
        try:
            self.socket.bind((address, 0))
            self.socket.connect(("127.0.0.1", port))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        except OSError:
            self.refused = True

    def greet(self, window=None):
        settings = b"" if window is None else struct.pack(">HI", INITIAL_WINDOW, window)
        return self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        """False once the other side has had enough."""
        if self.refused:
            return False
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def swallow(self):
        """Reads what has come, so that the other side is never the one that waits."""
        if self.refused:
            return
        self.socket.settimeout(0.001)
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 16):
                pass
        self.socket.settimeout(harness.WAIT_S)

    def is_closed(self):
        """By the other side, looking at what has come."""
        if self.refused:
            return True
        self.socket.settimeout(0.001)
        try:
            while self.socket.recv(1 << 16):
                pass
            return True
        except TimeoutError:
            return False
        except OSError as error:
            return not isinstance(error, ssl.SSLWantReadError)

    def await_answers(self, streams):
        """Until each of the streams has been ended by the other side; an error if the connection is first."""
        streams, data = set(streams), b""
        while streams:
            while len(data) < 9 or len(data) < 9 + (size := int.from_bytes(data[:3], "big")):
                read = self.socket.recv(1 << 16)
                if not read:
                    raise AssertionError(f"the connection was closed before {sorted(streams)} were answered")
                data += read
            kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9], "big")
            if kind == RESET or (kind in (DATA, HEADERS) and flags & END_STREAM):
                streams.discard(stream)
            data = data[9 + size:]

    def pour(self, streams, size):
        """Sends so much of each stream's body, as its windows let it, or until the other side ends the stream."""
        left, windows, initial, data = dict.fromkeys(streams, size), {0: WINDOW_FIRST}, WINDOW_FIRST, b""
        while left:
            sent = 0
            for stream in list(left):
                count = min(1 << 14, left[stream], windows[0], windows.setdefault(stream, initial))
                if count <= 0:
                    continue
                self.socket.settimeout(harness.WAIT_S)
                self.socket.sendall(frame(DATA, 0, stream, bytes(count)))
                windows[0], windows[stream], left[stream], sent = windows[0] - count, windows[stream] - count, left[stream] - count, sent + count
                if left[stream] == 0:
                    del left[stream]
            self.socket.settimeout(harness.WAIT_S if sent == 0 else 0.0001)
            try:
                read = self.socket.recv(1 << 18)
                if not read:
                    raise AssertionError(f"the connection was closed before {sorted(left)} were sent")
                data += read
            except (TimeoutError, ssl.SSLWantReadError):
                if sent == 0:
                    raise AssertionError(f"no window for {sorted(left)}") from None
            while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
                kind, flags, stream, payload = data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:9 + length]
                data = data[9 + length:]
                if kind == WINDOW_UPDATE:
                    windows[stream] = windows.get(stream, initial) + int.from_bytes(payload, "big")
                elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
                    left.pop(stream, None)
                elif kind == SETTINGS and not flags:
                    new = dict(struct.iter_unpack(">HI", payload)).get(INITIAL_WINDOW, initial)
                    windows = {of: window + (new - initial if of else 0) for of, window in windows.items()}
                    initial = new

    def close(self):
        self.socket.close()


class Calling(Hostile):
    """One connection that makes one call after the other, and takes every answer."""

    def __init__(self, port, tls, address=HONEST_ADDRESS):
        super().__init__(port, tls, address)
        self.greet(WINDOW_MAX)
        self.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_MAX - WINDOW_FIRST)))
        self.stream, self.headers = -1, b""

    def search(self):
        """Whether there was a reply; a call that is refused has none, and its last headers say why."""
        self.stream += 2
        self.send(call_headers(self.stream, SEARCH) + frame(DATA, END_STREAM, self.stream, grpc_message(search_message(k=1))))
        replied = False
        while True:
            length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + self.receive(9))
            payload = self.receive(length)
            if kind == HEADERS:
                self.headers = payload
            if stream == self.stream:
                replied |= kind == DATA and length > 0
                if flags & END_STREAM and kind in (DATA, HEADERS) or kind == RESET:
                    return replied

    def receive(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("closed by the other side")
            data += part
        return bytes(data)


class Growing:
    def assert_stays_small(self, service, method, piece):
        """While it is sent `piece` over and over, each of which would be an object. Of Ingest it is the document that is refused."""
        forget_peak(service)
        before = memory_mib(service, "VmRSS")
        code, text, _ = self.rpc(service.address, method, piece * (GROWING_BYTES // len(piece)))
        growth = memory_mib(service, "VmHWM") - before
        print(f"{method} of {piece.hex()}: {growth:.0f} MiB more at its peak, {code} {text}", flush=True)
        self.assertIn(code, (0, INVALID_ARGUMENT) if method == INGEST else (INVALID_ARGUMENT,))
        if not harness.IS_SANITIZED:
            self.assertLess(growth, 5 * GROWING_BYTES / MIB, "the message, what carries it, and little else")


class HostileClients:
    """What is tried; the service and how it is reached are the subclasses'."""

    reads, writes = SEARCH, UPSERT  # what is called: what has a large reply, what has a large request

    def read_message(self):
        return search_message()

    def assert_serves(self):
        """At last: what it has of others it may still be done with, and says so at once."""
        def search():
            run = self.retro("search", "lighthouse")
            if run.code != 0:
                self.assertIn("QUEUE_FULL", run.err)
            return "document" in run.out
        harness.wait_for("a search", search)

    def start_service(self, *flags):
        self.service = self.start_retriever("--request-bytes-max", str(REQUEST_BYTES_MAX), *flags)

    def setUp(self):
        super().setUp()
        self.hostile, self.hostile_tls = [], None
        self.addCleanup(lambda: [connection.close() for connection in self.hostile])

    def fill(self):
        text = "a document of a harbour and its lighthouse. " * 40
        self.write_jsonl("docs.jsonl", [{"id": f"d{i}", "text": f"{i}: {text}"} for i in range(300)])
        self.retro_ok("ingest", "docs.jsonl")

    def connect(self):
        connection = Hostile(self.hostile_port, self.hostile_tls)
        self.hostile.append(connection)
        return connection

    @contextlib.contextmanager
    def nobody_else_notices(self, growth_max_mib=GROWTH_MAX_MIB):
        """After what is done here others are served, and meanwhile memory stays in its bounds."""
        self.assert_serves()
        forget_peak(self.service)
        before = memory_mib(self.service, "VmRSS")
        yield
        self.assert_serves()
        self.assertIsNone(self.service.process.poll(), "the service is gone")
        growth = memory_mib(self.service, "VmHWM") - before
        print(f"{self.id()}: {growth:.0f} MiB more at its peak", flush=True)
        if not harness.IS_SANITIZED:
            self.assertLess(growth, growth_max_mib)

    def test_connections_that_never_say_anything_are_ended(self):
        beginnings = (b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0)[:5])
        with self.nobody_else_notices():
            connections = [self.connect() for _ in range(CONNECTIONS)]
            for i, connection in enumerate(connections):
                connection.send(beginnings[i % len(beginnings)])
        harness.wait_for("all are ended", lambda: all(connection.is_closed() for connection in connections), HANDSHAKE_S + harness.WAIT_S)

    def test_messages_that_are_promised_and_never_come(self):
        with self.nobody_else_notices():
            for _ in range(CONNECTIONS):
                connection = self.connect()
                connection.greet()
                for stream in range(1, 41, 2):
                    connection.send(call_headers(stream, self.writes) + frame(DATA, 0, stream, grpc_message(b"x", claimed=MESSAGE_BYTES_MAX)))

    def test_messages_of_which_most_comes(self):
        """More than there may be, before a key could be looked at: gRPC's buffers have a bound, past which it cancels calls."""
        with self.nobody_else_notices(ARRIVING_GROWTH_MAX_MIB):
            connection, streams = self.connect(), range(1, 2 * ARRIVING_BYTES // MOST_OF_A_MESSAGE, 2)
            connection.greet()
            for stream in streams:
                connection.send(call_headers(stream, self.writes) + frame(DATA, 0, stream, grpc_message(b"", claimed=20 * MIB)))
            connection.pour(streams, MOST_OF_A_MESSAGE)

    def test_a_reader_that_never_reads(self):
        with self.nobody_else_notices():
            for _ in range(4):
                connection = self.connect()
                connection.greet(window=0)
                for stream in range(1, 101, 2):  # replies of 0.6 MB; more than fill --request-bytes-max (docs/security.md)
                    connection.send(call_headers(stream, self.reads) + frame(DATA, END_STREAM, stream, grpc_message(self.read_message())))
            time.sleep(20 if harness.IS_SANITIZED else 3)  # for the replies to pile up
        for connection in self.hostile:
            connection.close()
        self.assert_serves()

    def flood(self, frames_of):
        """`frames_of` each stream number, over as many connections as the other side wants to have it."""
        with self.nobody_else_notices(self.flood_growth_max_mib):
            connection, number = None, 1
            for done in range(self.flood_calls):
                if connection is None or number > 1 << 30:
                    connection, number = self.connect(), 1
                    connection.greet()
                if not connection.send(frames_of(number)):
                    connection.close()
                    connection = None
                    continue
                number += 2
                if done % 500 == 0:
                    connection.swallow()

    def test_a_flood_of_calls_that_never_end(self):
        self.flood(lambda stream: call_headers(stream, self.reads))

    def test_a_flood_of_calls_that_are_cancelled_at_once(self):
        message = grpc_message(self.read_message())
        self.flood(lambda stream: call_headers(stream, self.reads) + frame(DATA, END_STREAM, stream, message) +
                   frame(RESET, 0, stream, struct.pack(">I", CANCEL)))

    def test_a_flood_of_pings(self):
        self.flood(lambda stream: frame(PING, 0, 0, struct.pack(">Q", stream)))

    def test_frames_that_are_no_frames(self):
        noise = random.Random(1).randbytes
        with self.nobody_else_notices():
            for junk in (b"GET / HTTP/1.1\r\n\r\n", noise(4096), PREFACE + noise(65536),
                         PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 9000),
                         PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 77, b"x" * 100),
                         PREFACE + frame(SETTINGS, 0, 0) + b"\xff\xff\xff" + bytes(60000)):
                self.connect().send(junk)


class Directly(HostileClients):
    message_bytes_max = MESSAGE_BYTES_MAX
    flood_calls = 20_000
    flood_growth_max_mib = 64 * flood_calls / 1024  # gRPC 1.51 bounds the bytes of such a call, not their number

    def test_a_message_one_byte_past_the_bound(self):
        with self.nobody_else_notices():
            for size, code in ((self.message_bytes_max, INVALID_ARGUMENT), (self.message_bytes_max + 1, RESOURCE_EXHAUSTED)):
                overhead = len(harness.protobuf_field(1, bytes(size))) - size
                message = harness.protobuf_field(1, bytes(size - overhead))  # no collection's name, nor a prompt
                self.assertEqual(len(message), size)
                self.assertEqual(self.rpc(self.service.address, self.writes, message)[0], code, size)


class ARetriever(Directly, Growing, harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.start_service()
        self.hostile_port = self.retriever_port
        self.fill()

    def test_messages_that_would_become_fifty_times_as_large(self):
        for method, piece in ((SEARCH, b"\x12\x00"), (UPSERT, b"\x12\x00"), (SEARCH, b"\x7b\x7c"), (DELETE, b"\x12\x00"), (INGEST, b"\x1a\x00")):
            self.assert_stays_small(self.service, method, piece)


class AGenerator(Directly, harness.EndToEndTest):
    """Which streams, and calls a retriever."""

    message_bytes_max = 20 * MIB
    reads = writes = GENERATE
    TOKENS = 100

    def setUp(self):
        super().setUp()
        self.start_retriever()
        self.service = self.start_generator(make_model(self), "--request-bytes-max", str(REQUEST_BYTES_MAX))
        self.hostile_port = self.generator_port

    def read_message(self, tokens=TOKENS):
        timeout = harness.protobuf_field(9, harness.varint(1 << 3) + harness.varint(60))  # of look-ups: they are not what this is about
        return (harness.protobuf_field(1, b"a lighthouse by the harbour") + harness.varint(3 << 3) + harness.varint(tokens) +
                harness.protobuf_field(5, timeout))

    def assert_serves(self):
        """At last: it may have as many generations to do as it takes, and says so at once."""
        def generate():
            code, text, events = self.rpc(self.service.address, GENERATE, self.read_message(tokens=2))
            self.assertIn(code, (0, RESOURCE_EXHAUSTED), text)
            return len(events) > 1
        harness.wait_for("a generation", generate)


class AShard(Directly, harness.EndToEndTest):
    """A replica, whose port is for routers and replicas: who is among them may still be broken."""

    reads, writes = SHARD_SEARCH, SHARD_WRITE

    def setUp(self):
        super().setUp()
        _, self.service = start_cluster(self, "--request-bytes-max", str(REQUEST_BYTES_MAX))
        self.hostile_port = self.service.port
        self.fill()

    def read_message(self):
        vector = harness.protobuf_field(1, struct.pack("<64f", 1, *bytes(63)))
        query = harness.protobuf_field(1, vector)
        return harness.protobuf_field(3, query) + harness.varint(4 << 3) + harness.varint(1000)


class ThroughTheProxy(HostileClients, harness.EndToEndTest):
    flood_calls = 100_000
    flood_growth_max_mib = 2 * GROWTH_MAX_MIB  # a slow flood lasts into the next ten seconds in which the proxy lets some through

    def setUp(self):
        super().setUp()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                        "/CN=router", "-addext", "subjectAltName=DNS:router,DNS:generator,DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out",
                        "ca.pem"], cwd=self.folder, check=True, capture_output=True)
        self.start_service("--tls-certificate", self.path("ca.pem"), "--tls-key", self.path("key.pem"))
        self.hostile_tls = ssl.create_default_context(cafile=self.path("ca.pem"))
        self.hostile_tls.set_alpn_protocols(["h2"])
        self.hostile_port = self.start_proxy()
        self.retriever_port = self.hostile_port  # the others come through it as well
        for name, value in (("RETRO_TLS_CA", self.path("ca.pem")), ("RETRO_API_KEY", KEY)):
            os.environ[name] = value
            self.addCleanup(os.environ.pop, name)
        harness.wait_for("the proxy finds the service", lambda: self.retro("stats").code == 0)
        self.fill()

    def start_proxy(self):
        with open(self.path("ca.pem"), encoding="ascii") as certificate, open(self.path("key.pem"), encoding="ascii") as key:
            self.write("proxy.pem", certificate.read() + key.read())
        self.write("keys.sha256", hashlib.sha256(KEY.encode()).hexdigest() + "\n")
        with open(os.path.join(harness.ROOT, "deploy", "compose", "haproxy.cfg"), encoding="utf-8") as f:
            config = f.read()
        port, self.generator_port, self.metrics_port = (harness.free_port() for _ in range(3))
        for old, new in (("/secrets", self.folder), ("bind :7700", f"bind 127.0.0.1:{port}"),
                         ("bind :7800", f"bind 127.0.0.1:{self.generator_port}"), ("bind :9090", f"bind 127.0.0.1:{self.metrics_port}"),
                         ("${ROUTER}:7700", self.service.address),
                         ("${GENERATOR}:7800", self.service.address)):  # the retriever stands for both
            self.assertIn(old, config)
            config = config.replace(old, new)
        self.popen(["haproxy", "-db", "-f", self.write("haproxy.cfg", config)])
        return port

    def ports(self):
        return self.retriever_port, self.generator_port

    def searches(self, port, count=1):
        """How many of as many searches an honest client got an answer to."""
        with contextlib.closing(Calling(port, self.hostile_tls)) as client:
            return sum(client.search() for _ in range(count))

    def test_an_honest_client_is_never_refused(self):
        for port in self.ports():
            self.assertEqual(self.searches(port, HONEST_CALLS), HONEST_CALLS)

    def test_connections_without_a_handshake_shut_nobody_out(self):
        for port in self.ports():
            with self.nobody_else_notices():
                self.hostile += [Hostile(port) for _ in range(SILENT_CONNECTIONS)]
                self.assertEqual(self.searches(port), 1)
                harness.wait_for("the proxy refuses most", lambda: self.open_connections() <= CONNECTIONS_OF_AN_ADDRESS)
        for frontend in ("retriever", "generator"):
            self.assertGreater(self.proxy_metric(f'haproxy_frontend_denied_connections_total{{proxy="{frontend}"}}'), 0)
        self.assertEqual(self.proxy_metric('haproxy_backend_active_servers{proxy="router"}'), 1)

    def test_without_a_key_nothing_of_a_call_reaches_a_service(self):
        for port, backend in zip(self.ports(), ("router", "generator")):
            with self.nobody_else_notices(), contextlib.closing(Calling(port, self.hostile_tls, HOSTILE_ADDRESS)) as client:
                before = self.proxy_metric(f'haproxy_backend_http_requests_total{{proxy="{backend}"}}')
                for stream in range(1, 41, 2):
                    client.send(call_headers(stream, UPSERT, key="x" * 64) + frame(DATA, 0, stream, grpc_message(b"x", claimed=MESSAGE_BYTES_MAX)))
                client.await_answers(range(1, 41, 2))
                self.assertEqual(self.proxy_metric(f'haproxy_backend_http_requests_total{{proxy="{backend}"}}'), before)
                # Health needs none: the one that fits is answered, the one that would fill the service's memory is not let in.
                client.send(call_headers(41, HEALTH, key="") + frame(DATA, END_STREAM, 41, grpc_message(b"")))
                client.await_answers([41])
                client.send(call_headers(43, HEALTH, key=""))
                client.pour([43], 1 << 20)
                self.assertEqual(self.proxy_metric(f'haproxy_backend_http_requests_total{{proxy="{backend}"}}'), before + 1)
        self.assertEqual(self.proxy_metric('haproxy_backend_http_requests_total{proxy="keyless"}'), 42)

    def proxy_metric(self, series):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            (value,) = [line.split()[-1] for line in page.read().decode().splitlines() if line.startswith(series)]
        return float(value)

    def open_connections(self):
        return sum(not connection.is_closed() for connection in self.hostile)

    def test_calls_without_an_end_shut_nobody_out(self):
        for port in self.ports():
            with self.nobody_else_notices():
                self.hostile_port = port
                for _ in range(20):
                    connection = self.connect()
                    connection.greet()
                    for stream in range(1, 201, 2):
                        connection.send(call_headers(stream, SEARCH))
                self.assertEqual(self.searches(port), 1)
                with contextlib.closing(Calling(port, self.hostile_tls, HOSTILE_ADDRESS)) as client:
                    self.assertFalse(client.search())
                    for name, value in ((b"grpc-status", b"8"), (b"grpc-message", b"too much from this address")):
                        self.assertIn(name + bytes([len(value)]) + value, client.headers)
        self.assertGreater(self.proxy_metric('haproxy_backend_http_requests_total{proxy="refused"}'), 0)


class BeforeAnotherService(Growing, harness.EndToEndTest):
    """A router and a generator, which call others. What comes as a request id or a trace goes on to those, and what is no text must not:
    gRPC ends who sends that."""

    VALUES = (b"\x80\xff\x01bad", b"a\nb", b"a\r\nforged: yes", b"\x00", b"\x7f", b"\xc3\xa9", b" ", b"", b"x" * 126, b"-" * 55)

    def assert_answers(self, service, method, message):
        connection = Hostile(service.port)
        self.addCleanup(connection.close)
        connection.greet()
        streams = range(1, 4 * len(self.VALUES), 4)
        for stream, value in zip(streams, self.VALUES):
            for number, name in ((stream, "x-request-id"), (stream + 2, "traceparent")):
                self.assertTrue(connection.send(call_headers(number, method, (name, value)) + frame(DATA, END_STREAM, number, grpc_message(message))))
        connection.await_answers([number for stream in streams for number in (stream, stream + 2)])
        self.assertIsNone(service.process.poll(), "the service is gone")

    def test_by_a_router(self):
        router, _ = start_cluster(self)
        self.assert_answers(router, SEARCH, search_message())

    def start_both(self):
        self.start_retriever()
        return self.start_generator(make_model(self))

    def test_by_a_generator(self):
        generator = self.start_both()
        prompt = harness.protobuf_field(1, b"a lighthouse by the harbour")
        self.assert_answers(generator, GENERATE, prompt + harness.varint(3 << 3) + harness.varint(2))

    def test_messages_that_would_become_fifty_times_as_large(self):
        generator = self.start_both()
        self.assert_stays_small(generator, GENERATE, b"\x32\x00")  # stop strings
        self.assert_stays_small(generator, GENERATE, b"\x7b\x7c")
        for kind in (b"\x7b\x7c", b"\x0a\x00"):
            self.assert_stays_small(generator, SCORE, kind)


if __name__ == "__main__":
    harness.main()
