"""Collections from the command line, in a cluster of two shards with two replicas each, two routers and API keys."""

import hashlib
import json

import harness

KEYS = {"admin": {"role": "admin"}, "news": {"role": "write", "collections": ["news"]}, "default": {"role": "read", "collections": [""]}}


class Collections(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.addresses = {f"{s}{r}": f"127.0.0.1:{harness.free_port()}" for s in "ab" for r in range(2)}
        self.cluster_file = self.write("cluster.json", json.dumps({
            "version": 1, "cluster": "main", "store_id": "0123456789abcdef" * 2,
            "shards": [{"slots": slots, "epoch": 1, "primary": f"{name}0",
                        "replicas": [{"name": f"{name}{i}", "address": self.addresses[f"{name}{i}"]} for i in range(2)]}
                       for name, slots in (("a", [0, 2047]), ("b", [2048, 4095]))]}))
        for name in KEYS:
            self.write(f"{name}.key", f"key-of-{name}\n")
        self.write("keys.json", json.dumps({"keys": [
            {"name": name, "sha256": hashlib.sha256(f"key-of-{name}".encode()).hexdigest(), **key} for name, key in KEYS.items()]}))
        self.routers = [self.start("retro-retriever", ["--role", "router", "--cluster-file", self.cluster_file, "--embedder", "hash:64",
                                                       "--tokenizer", harness.TOKENIZER, "--api-keys", self.path("keys.json")], port)
                        for port in (self.retriever_port, harness.free_port())]
        self.replicas = {name: self.start_replica(name) for name in self.addresses}
        self.wait_for_all()
        self.write_jsonl("plain.jsonl", [{"id": f"d{i}", "text": f"a plain document, the one of number {i}"} for i in range(20)])
        self.write_jsonl("news.jsonl", [{"id": f"d{i}", "text": f"the news of day {i}"} for i in range(20)])

    def start_replica(self, name, *more):
        prints = self.routers[0].event("fingerprints")
        port = int(self.addresses[name].rsplit(":", 1)[1])
        return self.start("retro-shard", ["--cluster-file", self.cluster_file, "--shard", str("ab".index(name[0])), "--replica", name,
                                          "--data", self.path(name), "--embedder-fingerprint", prints["embedder"],
                                          "--tokenizer-fingerprint", prints["tokenizer"], "--dimension", prints["dimension"],
                                          "--late-ms", "10000", *more], port)  # no busy disk makes one late

    def as_(self, key, command, *arguments, router=0):
        """`command` may have an action: "collections list"."""
        return self.retro(*command.split(), "--retriever", self.routers[router].address, "--api-key-file", self.path(f"{key}.key"),
                          *arguments)

    def ok(self, *arguments, **more):
        run = self.as_(*arguments, **more)
        self.assertEqual(run.code, 0, run)
        return run

    def fails(self, reason, *arguments, **more):
        run = self.as_(*arguments, **more)
        self.assertEqual(run.code, 1, run)
        self.assertIn(reason, run.err)

    def wait_for_all(self):
        def in_sync():
            run = self.as_("admin", "admin replicas", "--json")
            return run.code == 0 and all(r.get("in_sync") and r.get("reachable") for r in run.json()[0]["replicas"])
        harness.wait_for("all in sync", in_sync)
        nobody = [f"nobody{i}" for i in range(20)]  # some of each shard
        for router in range(2):
            harness.wait_for("the router reads them", lambda r=router: self.as_("admin", "search", "anything", router=r).code == 0)
            harness.wait_for("and writes", lambda r=router: self.as_("admin", "delete", *nobody, router=r).code == 0)

    def names(self, router=0):
        return [c.get("name", "") for c in self.ok("admin", "collections list", "--json", router=router).json()[0]["collections"]]

    def digests(self):
        return [[self.ok("admin", "admin verify", "--shard", str("ab".index(name[0])), "--replica", name).out.split()[0]
                 for name in self.addresses if name[0] == shard] for shard in "ab"]

    def documents(self, collection, key="admin", router=0):
        run = self.ok(key, "list", "--collection", collection, "--limit", "0", "--json", router=router)
        return {line["document"]["id"] for line in run.json()}

    def assert_replicas_are_equal(self):
        for of_shard in self.digests():
            self.assertEqual(len(set(of_shard)), 1, of_shard)

    def test_a_collection_from_its_making_to_its_end(self):
        self.fails("PERMISSION_DENIED", "news", "collections create", "news")
        self.ok("admin", "collections create", "news")
        self.ok("admin", "collections create", "news", router=1)  # it is there as it would be made
        self.assertEqual([self.names(0), self.names(1)], [["", "news"]] * 2)
        self.ok("admin", "ingest", "plain.jsonl")
        self.ok("news", "ingest", "news.jsonl", "--collection", "news")
        self.fails("PERMISSION_DENIED", "news", "ingest", "news.jsonl")
        self.fails("PERMISSION_DENIED", "default", "search", "news", "--collection", "news")

        everything = ("search", "the news of day 3", "-k", "100", "--json")
        self.assertNotIn("the news", self.ok("default", *everything).out)
        of_news = self.ok("news", *everything, "--collection", "news").out
        self.assertIn("the news of day 3", of_news)
        self.assertNotIn("plain", of_news)
        self.assertEqual(self.documents("news", "news"), {f"d{i}" for i in range(20)})
        self.assert_replicas_are_equal()

        self.replicas["b1"].stop()  # it will hear of all of it later
        harness.wait_for("writes go on without it", lambda: self.as_("admin", "delete", "d19").code == 0)
        self.ok("news", "delete", "d3", "--collection", "news")
        self.fails("PERMISSION_DENIED", "news", "collections delete", "news", "--yes")
        self.ok("admin", "collections delete", "news", "--yes")
        for router in range(2):
            self.fails("COLLECTION_NOT_FOUND", "news", *everything, "--collection", "news", router=router)
        self.fails("COLLECTION_NOT_FOUND", "news", "ingest", "news.jsonl", "--collection", "news")
        self.fails("COLLECTION_NOT_FOUND", "admin", "collections delete", "news", "--yes")
        self.assertEqual([self.names(0), self.names(1)], [[""]] * 2)

        self.ok("admin", "collections create", "news")
        self.assertEqual(self.documents("news", "news"), set())
        self.write_jsonl("again.jsonl", [{"id": "again", "text": "the news of another time"}])
        self.ok("news", "ingest", "again.jsonl", "--collection", "news")
        self.replicas["b1"] = self.start_replica("b1")
        self.wait_for_all()
        self.assert_replicas_are_equal()

        for replica in self.replicas.values():
            replica.stop()
        for name in self.addresses:
            self.start_replica(name)
        self.wait_for_all()
        self.assert_replicas_are_equal()
        self.assertEqual(self.documents("news", "news", router=1), {"again"})
        self.assertEqual(self.documents("", "default"), {f"d{i}" for i in range(19)})
        audits = [json.loads(line) for line in self.routers[0].log().split("\n") if '"audit"' in line]
        seen = {(a["method"], a["key"], a["code"]) for a in audits}
        self.assertLessEqual({("CreateCollection", "admin", "OK"), ("DeleteCollection", "admin", "OK")}, seen)

    def test_what_is_not_done_on_every_shard_is_repeated(self):
        for name in ("b0", "b1"):
            self.replicas[name].stop()
        self.fails("WRITE_OUTCOME_UNKNOWN", "admin", "collections create", "news")
        for name in ("b0", "b1"):
            self.start_replica(name)
        self.wait_for_all()
        harness.wait_for("made on all shards", lambda: self.as_("admin", "collections create", "news").code == 0)
        self.ok("news", "ingest", "news.jsonl", "--collection", "news")
        self.assertEqual(self.documents("news"), {f"d{i}" for i in range(20)})


if __name__ == "__main__":
    harness.main()
