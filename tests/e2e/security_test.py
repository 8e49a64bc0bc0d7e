"""TLS and API keys from the command line: what `retro` and the services say of them, and that no secret is ever in a log."""

import hashlib
import json
import os
import subprocess
import unittest

import harness

KEYS = {"reader": ("read-key-9d41f3", "read"), "writer": ("write-key-77ab02", "write")}


class Secured(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                     "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        self.identity("server")
        keys = [{"name": name, "role": role, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, (key, role) in KEYS.items()]
        self.write("keys.json", json.dumps({"keys": keys}))
        for name, (key, _) in KEYS.items():
            self.write(f"{name}.key", key + "\n")
        self.write("note.txt", "The harbour of Trieste has a lighthouse.")
        self.retriever = self.start_retriever(*self.server_flags(), "--api-keys", self.path("keys.json"), "--log-level", "debug")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def identity(self, name):
        self.write(f"{name}.ext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                     "-keyout", f"{name}-tls.key", "-out", f"{name}.csr")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
                     "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    def server_flags(self):
        return ["--tls-certificate", self.path("server.pem"), "--tls-key", self.path("server-tls.key")]

    def secured(self, command, *arguments, key):
        return self.retro(command, "--tls-ca", "ca.pem", "--api-key-file", f"{key}.key", *arguments)

    def test_what_each_key_may_do_and_what_the_logs_say(self):
        refused = self.secured("ingest", "note.txt", key="reader")
        self.assertEqual(refused.code, 1, refused)
        self.assertIn("PERMISSION_DENIED", refused.err)
        self.assertEqual(self.secured("ingest", "note.txt", key="writer").code, 0)
        found = self.secured("search", "--json", "lighthouse", key="reader")
        self.assertEqual(found.code, 0, found)
        self.assertIn("Trieste", found.out)
        self.assertEqual(self.secured("delete", "--yes", "note.txt", key="writer").code, 0)

        self.retriever.stop()
        log = self.retriever.log()
        events = [json.loads(line) for line in log.strip().split("\n")]
        audits = [event for event in events if event["event"] == "audit"]
        requests = {(event["method"], event["key"]) for event in events if event["event"] == "request"}
        self.assertLessEqual({("Search", "reader"), ("DeleteDocuments", "writer")}, requests)
        self.assertIn(("DeleteDocuments", "writer", "OK"), {(a["method"], a["key"], a["code"]) for a in audits})
        self.assertTrue(any("note.txt" in a["request"] for a in audits), audits)
        for key, _ in KEYS.values():
            self.assertNotIn(key, log)
            self.assertNotIn(hashlib.sha256(key.encode()).hexdigest(), log)
        self.assertNotIn("PRIVATE KEY", log)

    def test_without_a_key_or_without_tls(self):
        no_key = self.retro("stats", "--tls-ca", "ca.pem")
        self.assertEqual(no_key.code, 1, no_key)
        self.assertIn("UNAUTHENTICATED", no_key.err)
        plaintext = self.retro("stats")
        self.assertEqual(plaintext.code, 3, plaintext)
        self.assertIn("--tls-ca", plaintext.err)

    def test_a_key_never_leaves_the_machine_in_plaintext(self):
        run = self.retro("stats", "--retriever", "10.255.255.1:7700", "--api-key-file", "reader.key")
        self.assertEqual(run.code, 2, run)
        self.assertIn("plaintext", run.err)

    def test_check_config_looks_at_keys_and_certificates(self):
        for flag, bad, word in (("--api-keys", self.write("bad.json", "{}"), "keys"),
                                ("--tls-key", self.path("ca.key"), "is not the key of"),
                                ("--tls-client-ca", self.path("keys.json"), "no certificate")):
            settings = {"--tls-certificate": self.path("server.pem"), "--tls-key": self.path("server-tls.key"),
                        "--api-keys": self.path("keys.json"), flag: bad}
            flags = [word_of_pair for pair in settings.items() for word_of_pair in pair]
            run = self.run_program(harness.program("retro-retriever"), *self.retriever_arguments(), *flags, "--check-config")
            self.assertEqual(run.code, 2, run)
            self.assertIn(word, run.err)
        good = self.run_program(harness.program("retro-retriever"), *self.retriever_arguments(), *self.server_flags(),
                                "--api-keys", self.path("keys.json"), "--check-config")
        self.assertEqual(good.code, 0, good)


if __name__ == "__main__":
    os.environ.pop("RETRO_API_KEY", None)
    unittest.main(verbosity=2)
