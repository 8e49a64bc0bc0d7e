"""A cluster as an operator has it: started, looked at, a replica promoted, snapshots made and restored, by command line."""

import json
import os
import shutil
import time
import urllib.request

import harness

SHARD = b"retro.shard.v1.ShardService"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class Cluster(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.addresses = [f"127.0.0.1:{harness.free_port()}" for _ in range(2)]
        self.cluster_file = self.write("cluster.json", json.dumps({
            "version": 1, "cluster": "main", "store_id": "0123456789abcdef" * 2,
            "shards": [{"slots": [0, 4095], "epoch": 1, "primary": "a0",
                        "replicas": [{"name": f"a{i}", "address": self.addresses[i]} for i in range(2)]}]}))
        self.snapshots = ["--snapshot-dir", self.path("snapshots")]
        self.router = self.start("retro-retriever", ["--role", "router", "--cluster-file", self.cluster_file, "--embedder",
                                                     "hash:64", "--tokenizer", harness.TOKENIZER, *self.snapshots],
                                 self.retriever_port)
        self.assertEqual(self.health(), {"": "SERVING", "retro.retriever.v1.RetrieverService": "NOT_SERVING",
                                         "full_coverage": "NOT_SERVING"})
        self.replicas = [self.start_replica(i) for i in range(2)]
        harness.wait_for("both in sync", lambda: all(r.get("in_sync") and r.get("reachable") for r in self.list_replicas()))
        harness.wait_for("the router reads them", lambda: self.health()["full_coverage"] == "SERVING")  # by channels of its own

    def start_replica(self, number, *more):
        prints = self.router.event("fingerprints")
        port = int(self.addresses[number].rsplit(":", 1)[1])
        return self.start("retro-shard", ["--cluster-file", self.cluster_file, "--shard", "0", "--replica", f"a{number}", "--data",
                                          self.path(f"a{number}"), "--embedder-fingerprint", prints["embedder"],
                                          "--tokenizer-fingerprint", prints["tokenizer"], "--dimension", prints["dimension"],
                                          "--late-ms", "10000", *self.snapshots, *more], port)  # no busy disk makes one late

    def health(self):
        return {line["name"]: line["state"] for line in self.retro("health", "retriever", "--json").json()}

    def list_replicas(self):
        return self.retro_ok("admin", "replicas", "--json").json()[0]["replicas"]

    def verify(self, replica):
        return self.retro_ok("admin", "verify", "--replica", replica).out.split()[0]

    def found(self):
        return self.retro_ok("search", "a document about replicas", "--json").out

    def test_an_operators_day(self):
        harness.wait_for("serving", lambda: set(self.health().values()) == {"SERVING"})
        self.write_jsonl("docs.jsonl", [{"id": f"d{i}", "text": f"a document about replicas, the one of number {i}"} for i in range(40)])
        self.retro_ok("ingest", "docs.jsonl")
        self.assertEqual(self.verify("a0"), self.verify("a1"))
        compared = self.retro_ok("admin", "verify", "--all", "--json").json()
        self.assertEqual([(line["replica"], line["verdict"]) for line in compared], [("a0", "primary"), ("a1", "equal")])
        before = self.exported()

        names = self.retro_ok("snapshot", "create").out.split()
        self.assertEqual(len(names), 1)
        self.assertIn(names[0], self.retro_ok("snapshot", "list").out)
        self.write_jsonl("more.jsonl", [{"id": f"d{i}", "text": f"quite another text, {i}"} for i in range(20, 60)])
        self.retro_ok("ingest", "more.jsonl")

        self.assertEqual(self.replicas[0].stop(), 0)
        harness.wait_for("the router notices", lambda: not self.list_replicas()[0].get("reachable"))
        self.assertEqual(self.retro("ingest", "docs.jsonl").code, 1)
        self.assertIn("d", self.found())  # searches go on
        run = self.retro_ok("admin", "promote", "--replica", "a1")
        self.assertIn("a1 is the primary of shard 0", run.out)
        harness.wait_for("writes go on", lambda: self.retro("delete", "d59").code == 0)
        self.start_replica(0)
        harness.wait_for("both in sync", lambda: all(r.get("in_sync") and r.get("reachable") for r in self.list_replicas()))
        harness.wait_for("the router reads them", lambda: self.health()["full_coverage"] == "SERVING")  # by channels of its own
        self.assertEqual([bool(r.get("primary")) for r in self.list_replicas()], [False, True])

        self.retro_ok("snapshot", "restore", names[0])
        self.assertEqual(self.exported(), before)
        self.assertEqual(self.verify("a0"), self.verify("a1"))
        self.retro_ok("snapshot", "delete", names[0])
        self.assertEqual(self.retro_ok("snapshot", "list").out, "")
        self.assertEqual(self.retro("snapshot", "restore", names[0]).code, 1)

        self.retro_ok("admin", "compact")
        self.retro_ok("admin", "read-only")
        self.assertEqual(self.retro("ingest", "more.jsonl").code, 1)
        self.retro_ok("admin", "read-only", "--off")
        self.retro_ok("ingest", "more.jsonl")

    def state(self, replica, name):
        """What the health service of a replica says to that name."""
        request = bytes([0x0A, len(name)]) + name
        return self.rpc(replica.address, "/grpc.health.v1.Health/Check", request)[2][0]

    def metrics(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=harness.WAIT_S) as response:
            lines = response.read().decode().split("\n")
        return dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))

    def test_a_replica_is_ready_when_it_has_caught_up_and_shows_its_own_store(self):
        self.write_jsonl("docs.jsonl", [{"id": f"d{i}", "text": f"a document about replicas, the one of number {i}"} for i in range(9)])
        self.retro_ok("ingest", "docs.jsonl")
        for replica in self.replicas:
            replica.stop()
        shutil.rmtree(self.path("a1"))
        port = harness.free_port()
        follower = self.start_replica(1, "--metrics-listen", f"127.0.0.1:{port}")
        self.assertEqual([self.state(follower, name) for name in (b"", SHARD)], [SERVING, NOT_SERVING])
        metrics = self.metrics(port)
        self.assertEqual([metrics[f'{name}{{shard="0"}}'] for name in ("retro_shard_primary", "retro_store_position")], ["0", "0"])

        primary_port = harness.free_port()
        primary = self.start_replica(0, "--metrics-listen", f"127.0.0.1:{primary_port}")
        harness.wait_for("the follower is ready", lambda: self.state(follower, SHARD) == SERVING)
        self.assertEqual(self.state(primary, SHARD), SERVING)
        of_both = [self.metrics(each) for each in (primary_port, port)]
        for name in ('retro_store_documents{collection="",shard="0"}', 'retro_index_chunks{collection="",shard="0"}'):
            self.assertEqual([metrics[name] for metrics in of_both], ["9", "9"])
        self.assertEqual([metrics['retro_shard_primary{shard="0"}'] for metrics in of_both], ["1", "0"])
        self.assertGreater(float(of_both[0]['retro_store_disk_free_bytes{shard="0"}']), 0)

    def test_backups_leave_the_newest_and_every_replica_shows_when_that_was(self):
        self.replicas[1].stop()
        port = harness.free_port()
        follower = self.start_replica(1, "--metrics-listen", f"127.0.0.1:{port}")
        gauge = 'retro_snapshot_newest_timestamp_seconds{shard="0"}'
        self.assertNotIn(gauge, self.metrics(port))
        older = [self.retro_ok("snapshot", "create").out.strip() for _ in range(2)]
        name, *deleted = self.retro_ok("snapshot", "create", "--keep", "1").out.splitlines()
        self.assertEqual(sorted(deleted), [f"deleted {each}" for each in older])
        self.assertEqual([line.split()[0] for line in self.retro_ok("snapshot", "list").out.splitlines()], [name])
        newest = float(self.metrics(port)[gauge])
        self.assertLess(abs(newest - time.time()), harness.WAIT_S)
        follower.stop()
        self.start_replica(1, "--metrics-listen", f"127.0.0.1:{port}")
        self.assertEqual(float(self.metrics(port)[gauge]), newest)
        self.retro_ok("snapshot", "delete", name)
        self.assertNotIn(gauge, self.metrics(port))

    def test_a_shard_that_lost_all_its_disks_begins_again_from_a_snapshot(self):  # as docs/runbooks.md says
        documents = [{"id": f"d{i}", "text": f"a document about replicas, the one of number {i}"} for i in range(9)]
        self.write_jsonl("docs.jsonl", documents)
        self.retro_ok("ingest", "docs.jsonl")
        before = self.exported()
        name = self.retro_ok("snapshot", "create").out.strip()
        self.write_jsonl("later.jsonl", [{"id": "later", "text": "what no snapshot has"}])
        self.retro_ok("ingest", "later.jsonl")
        for replica in self.replicas:
            replica.stop()
            shutil.rmtree(self.path(f"a{self.replicas.index(replica)}"))
        shutil.copytree(self.path("snapshots", name), self.path("a0"))
        for number in range(2):
            self.start_replica(number)
        harness.wait_for("both in sync", lambda: all(r.get("in_sync") and r.get("reachable") for r in self.list_replicas()))
        harness.wait_for("the router reads them", lambda: self.health()["full_coverage"] == "SERVING")  # by channels of its own
        harness.wait_for("writes go on", lambda: self.retro("delete", "d0").code == 0)
        self.assertEqual(self.exported(), {key: document for key, document in before.items() if key != "d0"})
        self.assertEqual(self.verify("a0"), self.verify("a1"))

    def test_another_embedder_is_refused(self):
        self.assert_refuses_to_start("retro-retriever",
                                     ["--role", "router", "--cluster-file", self.cluster_file, "--embedder", "hash:32", "--tokenizer",
                                      harness.TOKENIZER, "--listen", "127.0.0.1:0"], "embedder", "64")

    def test_a_replica_that_the_file_does_not_have(self):
        self.assert_refuses_to_start("retro-shard", ["--cluster-file", self.cluster_file, "--shard", "0", "--replica", "a7", "--data",
                                                     self.path("x"), "--listen", "127.0.0.1:0"], "a7", os.path.basename(self.cluster_file))


if __name__ == "__main__":
    harness.main()
