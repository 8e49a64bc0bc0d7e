"""The retriever and the shard as services: settings, ports, stores that are not theirs, health, reflection, metrics, stop."""

import contextlib
import http.client
import os
import socket
import threading
import time
import unittest

import harness
from harness import protobuf_field

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST_SERVICES = protobuf_field(7, b"*")
DRAIN_S = 10  # --drain-ms-max's default


class Settings(harness.EndToEndTest):
    def test_an_unknown_flag(self):
        for name in ("retro-retriever", "retro-shard", "retro-generator"):
            self.assert_refuses_to_start(name, ["--nonsense"], "--help")

    def test_an_unknown_key_in_the_file(self):
        config = self.write("r.conf", "log-level = info\nnonsense = 7\n")
        self.assert_refuses_to_start("retro-retriever", [*self.retriever_arguments(), "--config", config], "nonsense")

    def test_a_file_that_is_not_there(self):
        self.assert_refuses_to_start("retro-retriever", [*self.retriever_arguments(), "--config", "nowhere.conf"], "nowhere.conf")

    def test_check_config_prints_what_is_in_force_and_starts_nothing(self):
        config = self.write("r.conf", "workers = 3\ningest-workers = 5\n")
        run = self.run_program(harness.program("retro-retriever"), *self.retriever_arguments(), "--config", config,
                               "--workers", "4", "--check-config")
        self.assertEqual(run.code, 0, run)
        in_force = dict(line.split(" = ", 1) for line in run.out.split("\n") if line)
        self.assertEqual(in_force["workers"], "4")  # a flag beats the file
        self.assertEqual(in_force["ingest-workers"], "5")
        self.assertEqual(in_force["reflection"], "true")
        self.assertEqual(in_force["allow-plaintext-beyond-loopback"], "false")
        self.assertFalse(os.path.exists(self.path("store")))

    def test_check_config_refuses_what_could_not_start(self):
        router = ["--role", "router", "--tokenizer", harness.TOKENIZER, "--embedder", "hash:8"]
        for name, arguments, word in (
                ("retro-retriever", router, "--cluster-file"),
                ("retro-retriever", [*router, "--cluster-file", "nowhere.json"], "nowhere.json"),
                ("retro-retriever", self.retriever_arguments(tokenizer="nowhere.model"), "nowhere.model"),
                ("retro-retriever", self.retriever_arguments(embedder="nowhere"), "nowhere"),
                ("retro-shard", [*self.shard_arguments(), "--embedder-fingerprint", "xyz"], "--embedder-fingerprint"),
                ("retro-shard", [*self.shard_arguments()[:-1], "r7"], "r7"),
                ("retro-shard", [*self.shard_arguments(), "--replicas-tls-ca", "nowhere.pem"], "nowhere.pem"),
                ("retro-generator", ["--model", "nowhere"], "nowhere"),
                ("retro-generator", ["--model", "nowhere", "--retriever-tls-ca", "nowhere.pem"], "nowhere.pem")):
            with self.subTest(arguments=arguments):
                self.assert_refuses_to_start(name, [*arguments, "--check-config"], word)
        run = self.run_program(harness.program("retro-shard"), *self.shard_arguments(), "--check-config")
        self.assertEqual(run.code, 0, run)
        self.assertFalse(os.path.exists(self.path("shard")))

    def test_values_that_cannot_be(self):
        arguments = self.retriever_arguments()
        for flag, value in (("--workers", "many"), ("--dtype", "fp8"), ("--log-format", "xml"), ("--log-level", "loud"),
                            ("--chunk-size", "0"), ("--embedder", "hash:0"), ("--embedder", "hash:x"), ("--workers", "0"),
                            ("--ingest-workers", "-1"), ("--drain-ms-max", "-1"), ("--requests-waiting-max", "-1")):
            with self.subTest(flag=flag, value=value):
                rest = [a for i, a in enumerate(arguments) if flag not in (a, arguments[i - 1])]
                self.assert_refuses_to_start("retro-retriever", [*rest, "--listen", "127.0.0.1:0", flag, value], flag)

    def test_values_of_a_shard_that_cannot_be(self):
        arguments = self.shard_arguments()
        for flag, value, named in (("--shard", "2", "shard 2"), ("--replica", "x", "\"x\""), ("--workers", "0", "--workers"),
                                   ("--cluster-file", "nowhere.json", "nowhere.json"), ("--chunk-size", "0", "--chunk-size"),
                                   ("--requests-waiting-max", "-1", "--requests-waiting-max"), ("--late-ms", "0", "--late-ms"),
                                   ("--log-changes-max", "0", "--log-changes-max"),
                                   ("--embedder-fingerprint", "xyz", "--embedder-fingerprint")):
            with self.subTest(flag=flag):
                rest = [a for i, a in enumerate(arguments) if flag not in (a, arguments[i - 1])]
                self.assert_refuses_to_start("retro-shard", [*rest, "--listen", "127.0.0.1:0", flag, value], named)

    def test_a_router_has_a_cluster_file_and_nobody_else(self):
        router = ["--role", "router", "--tokenizer", harness.TOKENIZER, "--embedder", "hash:8"]
        self.assert_refuses_to_start("retro-retriever", router, "--cluster-file")
        self.assert_refuses_to_start("retro-retriever", [*self.retriever_arguments(), "--cluster-file", "c.json"], "--cluster-file")
        self.assert_refuses_to_start("retro-retriever", [*router, "--cluster-file", self.write("c.json", "{}")], "version")

    def test_a_plaintext_address_beyond_loopback(self):
        for name, arguments in (("retro-retriever", self.retriever_arguments()), ("retro-shard", self.shard_arguments())):
            for address in ("0.0.0.0:0", "[::]:0", "127.example.org:0"):
                self.assert_refuses_to_start(name, [*arguments, "--listen", address], address, "--allow-plaintext-beyond-loopback")

    def shard_arguments(self):
        return ["--data", self.path("shard"), "--embedder-fingerprint", "a" * 64, "--tokenizer-fingerprint", "b" * 64,
                "--dimension", "8", "--cluster-file", self.write_cluster_file("main", 2), "--shard", "0", "--replica", "r0"]

    def test_a_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            for flag in ("--listen", "--health-listen", "--metrics-listen"):
                arguments = [*self.retriever_arguments(), *([] if flag == "--listen" else ["--listen", "127.0.0.1:0"])]
                self.assert_refuses_to_start("retro-retriever", [*arguments, flag, address], address, flag)
            self.assert_refuses_to_start("retro-shard", [*self.shard_arguments(), "--listen", address], address, "--listen")

    def test_addresses_that_are_none(self):
        for flag in ("--listen", "--metrics-listen"):
            with self.subTest(flag=flag):
                arguments = [*self.retriever_arguments(), *([] if flag == "--listen" else ["--listen", "127.0.0.1:0"])]
                self.assert_refuses_to_start("retro-retriever", [*arguments, flag, "127.0.0.1:port"], "127.0.0.1:port", flag)


class Stores(harness.EndToEndTest):
    """A store is only opened as what it is, and a refusal changes nothing in it."""

    def setUp(self):
        super().setUp()
        self.write("good.txt", "A document that must survive.")
        retriever = self.start_retriever()
        self.retro_ok("ingest", "good.txt")
        self.assertEqual(retriever.stop(), 0)

    def tearDown(self):
        self.start_retriever()
        self.assertEqual(self.stored_ids(), ["good.txt"])
        super().tearDown()

    def test_another_embedder(self):
        self.assert_refuses_to_start("retro-retriever", self.retriever_arguments(embedder="hash:32"), self.path("store"), "embedder")

    def test_another_tokenizer(self):
        other = self.path("other.model")
        with open(harness.TOKENIZER, "rb") as f:
            self.write("other.model", f.read() + protobuf_field(1000, b"an extension"))
        self.assert_refuses_to_start("retro-retriever", self.retriever_arguments(tokenizer=other), self.path("store"), "tokenizer")

    def test_another_chunk_size(self):
        self.assert_refuses_to_start("retro-retriever", [*self.retriever_arguments(), "--chunk-size", "32"], self.path("store"), "chunk size")

    def test_a_standalone_store_is_no_shard_of_a_cluster(self):
        self.assert_refuses_to_start("retro-shard", ["--data", self.path("store"), "--cluster-file",
                                                     self.write_cluster_file("main", 2), "--shard", "0", "--replica", "r0"],
                                     self.path("store"), "cluster")

    def test_a_shard_of_a_cluster_is_no_standalone_store_nor_another_shard(self):
        def arguments(cluster, shard, count):
            return ["--data", self.path("shard"), "--cluster-file", self.write_cluster_file(cluster, count), "--shard", str(shard),
                    "--replica", "r%d" % shard, "--embedder-fingerprint", "a" * 64, "--tokenizer-fingerprint", "b" * 64,
                    "--dimension", "64"]
        shard = self.start("retro-shard", arguments("main", 1, 2), harness.free_port())
        self.assertEqual(shard.stop(), 0)
        self.assert_refuses_to_start("retro-retriever", self.retriever_arguments(data="shard"), self.path("shard"), "main")
        self.assert_refuses_to_start("retro-shard", arguments("other", 1, 2), self.path("shard"), "main", "other")
        self.assert_refuses_to_start("retro-shard", arguments("main", 0, 2), self.path("shard"), "shard")
        self.assert_refuses_to_start("retro-shard", arguments("main", 1, 3), self.path("shard"), "3")

    def test_a_store_that_is_open_already(self):
        retriever = self.start_retriever()
        self.assert_refuses_to_start("retro-retriever", [*self.retriever_arguments(), "--listen", "127.0.0.1:0"], self.path("store"))
        self.assertEqual(retriever.stop(), 0)

    def test_a_place_that_cannot_be_a_store(self):
        self.write("file", "x")
        self.assert_refuses_to_start("retro-retriever", self.retriever_arguments(data="file"), self.path("file"))
        self.assert_refuses_to_start("retro-retriever", self.retriever_arguments(data="file/below"), self.path("file/below"))

    def test_no_tokenizer(self):
        self.assert_refuses_to_start("retro-retriever", self.retriever_arguments(tokenizer="nowhere.model"), "nowhere.model")
        self.write("bad.model", "no model")
        self.assert_refuses_to_start("retro-retriever", self.retriever_arguments(tokenizer=self.path("bad.model")), "bad.model")


class SlowProxy:
    """Passes connections on; every answer's first bytes come `delay` seconds late, as from a busy or distant machine."""

    def __init__(self, port, delay):
        self.upstream, self.delay = port, delay
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start(self.accept)

    @staticmethod
    def start(function, *arguments):
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.upstream))
                self.start(self.pump, client, server, 0)
                self.start(self.pump, server, client, self.delay)

    @staticmethod
    def pump(source, target, delay):
        with contextlib.suppress(OSError):
            data = source.recv(65536)
            time.sleep(delay)
            while data:
                target.sendall(data)
                data = source.recv(65536)


class Serving(harness.EndToEndTest):
    def test_health_is_told_by_name(self):
        self.start_retriever()
        run = self.retro_ok("health", "retriever", "--json")
        states = {one["name"]: one["state"] for one in run.json()}
        self.assertEqual(states, {"": "SERVING", "retro.retriever.v1.RetrieverService": "SERVING", "full_coverage": "SERVING"})

    def test_a_second_port_serves_health_alone(self):
        port = harness.free_port()
        self.start_retriever("--health-listen", f"127.0.0.1:{port}")
        code, message, responses = self.rpc(f"127.0.0.1:{port}", "/grpc.health.v1.Health/Check", b"")
        self.assertEqual((code, responses), (0, [b"\x08\x01"]), message)
        unimplemented = 12
        self.assertEqual(self.rpc(f"127.0.0.1:{port}", "/retro.retriever.v1.RetrieverService/GetInfo", b"")[0], unimplemented)

    def test_a_slow_way_to_the_service_is_no_absence(self):
        retriever = self.start_retriever()
        proxy = SlowProxy(retriever.port, delay=1)
        self.addCleanup(proxy.listener.close)
        self.retro_ok("stats", "--retriever", f"127.0.0.1:{proxy.port}")

    def test_reflection_lists_the_services(self):
        retriever = self.start_retriever()
        code, message, responses = self.rpc(retriever.address, REFLECTION, LIST_SERVICES)
        self.assertEqual(code, 0, message)
        for name in (b"retro.retriever.v1.RetrieverService", b"retro.admin.v1.AdminService", b"grpc.health.v1.Health"):
            self.assertIn(name, responses[0])

    def test_reflection_can_be_turned_off(self):
        retriever = self.start_retriever("--no-reflection")
        self.assertNotEqual(self.rpc(retriever.address, REFLECTION, LIST_SERVICES)[0], 0)

    def get(self, port, method, path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=harness.WAIT_S)
        connection.request(method, path)
        response = connection.getresponse()
        status, text = response.status, response.read().decode()
        connection.close()
        return status, text

    def test_metrics_count_what_was_asked_and_nothing_else_is_served(self):
        port = harness.free_port()
        self.start_retriever("--metrics-listen", f"127.0.0.1:{port}")
        self.retro_ok("search", "anything")
        status, text = harness.wait_for("the search is counted", lambda: self.search_counted(port))
        self.assertEqual(status, 200)
        self.assertIn("# TYPE retro_request_seconds histogram", text)
        for method, path in (("GET", "/"), ("GET", "/metrics/x"), ("GET", "/../etc/passwd"), ("GET", "/other")):
            self.assertEqual(self.get(port, method, path)[0], 404, path)
        for method in ("POST", "PUT", "DELETE"):
            self.assertIn(self.get(port, method, "/metrics")[0], (404, 405), method)

    def test_a_shard_goes_on_after_its_metrics_were_read(self):
        port = harness.free_port()
        shard = self.start("retro-shard", ["--data", self.path("shard"), "--cluster-file", self.write_cluster_file("main", 1), "--shard", "0",
                                           "--replica", "r0", "--embedder-fingerprint", "a" * 64, "--tokenizer-fingerprint", "b" * 64,
                                           "--dimension", "8", "--metrics-listen", f"127.0.0.1:{port}"], harness.free_port())
        for _ in range(3):
            status, text = self.get(port, "GET", "/metrics")
            self.assertEqual(status, 200)
            self.assertIn("exposer_scrapes_total", text)
        self.assertEqual(shard.stop(), 0)

    def search_counted(self, port):
        status, text = self.get(port, "GET", "/metrics")
        counted = any(line.startswith("retro_requests_total") and "Search" in line and 'code="OK"' in line and line.endswith(" 1")
                      for line in text.split("\n"))
        return (status, text) if counted else None


class Stopping(harness.EndToEndTest):
    def assert_stops(self, retriever, seconds):
        begin = time.monotonic()
        self.assertEqual(retriever.stop(), 0)
        self.assertLess(time.monotonic() - begin, seconds)
        self.assertIsNotNone(retriever.event("stopped"))

    def test_sigterm_and_sigint_end_it_with_0(self):
        for number in (harness.signal.SIGTERM, harness.signal.SIGINT):
            retriever = self.start_retriever()
            self.assertEqual(retriever.stop(number), 0)
            self.assertIsNotNone(retriever.event("stopped"))

    def test_sigterm_with_an_open_ingest_stream(self):
        """The stream waits for more documents: what was sent is in, the service ends in time, the command says how to go on."""
        retriever = self.start_retriever()
        command = self.popen([harness.program("retro"), "ingest", "--retries", "0", "-"], stdin=harness.subprocess.PIPE)
        command.stdin.write(b'{"id":"a","text":"one"}\n')
        command.stdin.flush()
        harness.wait_for("the document is stored", lambda: self.stored_ids() == ["a"])
        self.assert_stops(retriever, DRAIN_S + harness.WAIT_S / 4)
        out, err = command.communicate(b'{"id":"b","text":"two"}\n', harness.WAIT_S)
        self.assertNotEqual(command.returncode, 0, (out, err))
        self.start_retriever()
        self.assertEqual(self.stored_ids(), ["a"])
        self.retro_ok("ingest", "-", stdin=b'{"id":"a","text":"one"}\n{"id":"b","text":"two"}\n')
        self.assertEqual(self.stored_ids(), ["a", "b"])


if __name__ == "__main__":
    harness.main()
