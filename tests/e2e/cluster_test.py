"""A cluster as an operator has it: started, looked at, a replica promoted, snapshots made and restored, by command line."""

import json
import os

import harness


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
        harness.wait_for("both in sync", lambda: all(r.get("in_sync") for r in self.list_replicas()))

    def start_replica(self, number):
        prints = self.router.event("fingerprints")
        port = int(self.addresses[number].rsplit(":", 1)[1])
        return self.start("retro-shard", ["--cluster-file", self.cluster_file, "--shard", "0", "--replica", f"a{number}", "--data",
                                          self.path(f"a{number}"), "--embedder-fingerprint", prints["embedder"],
                                          "--tokenizer-fingerprint", prints["tokenizer"], "--dimension", prints["dimension"],
                                          *self.snapshots], port)

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
        before = self.exported()

        names = self.retro_ok("snapshot", "create").out.split()
        self.assertEqual(len(names), 1)
        self.assertIn(names[0], self.retro_ok("snapshot", "list").out)
        self.write_jsonl("more.jsonl", [{"id": f"d{i}", "text": f"quite another text, {i}"} for i in range(20, 60)])
        self.retro_ok("ingest", "more.jsonl")

        self.assertNotEqual(self.replicas[0].stop(), None)
        harness.wait_for("the router notices", lambda: not self.list_replicas()[0].get("reachable"))
        self.assertEqual(self.retro("ingest", "docs.jsonl").code, 1)
        self.assertIn("d", self.found())  # searches go on
        run = self.retro_ok("admin", "promote", "--replica", "a1")
        self.assertIn("a1 is the primary of shard 0", run.out)
        harness.wait_for("writes go on", lambda: self.retro("delete", "d59").code == 0)
        self.start_replica(0)
        harness.wait_for("both in sync", lambda: all(r.get("in_sync") for r in self.list_replicas()))
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

    def test_another_embedder_is_refused(self):
        self.assert_refuses_to_start("retro-retriever",
                                     ["--role", "router", "--cluster-file", self.cluster_file, "--embedder", "hash:32", "--tokenizer",
                                      harness.TOKENIZER, "--listen", "127.0.0.1:0"], "embedder", "64")

    def test_a_replica_that_the_file_does_not_have(self):
        self.assert_refuses_to_start("retro-shard", ["--cluster-file", self.cluster_file, "--shard", "0", "--replica", "a7", "--data",
                                                     self.path("x"), "--listen", "127.0.0.1:0"], "a7", os.path.basename(self.cluster_file))


if __name__ == "__main__":
    harness.main()
