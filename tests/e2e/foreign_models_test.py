"""Models of other programs, imported, on a store whose tokenizer is another: they generate with its documents' neighbours."""

import contextlib
import hashlib
import os
import string
import unittest
import urllib.request

import harness

GOLDENS = os.path.join(harness.ROOT, "tests", "goldens", "foreign")
# 61 pieces, as the smaller of the two models has rows for; its first is the pad that both know.
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *("##" + c for c in string.ascii_lowercase), *".,01"]
PROMPT = "grow pears, apples"
CHUNK = 8
NEIGHBOURS = 2
# Of the model.safetensors that the import makes of the same training's merged weights, as the oracle wrote them.
OF_MERGED_WEIGHTS = "3d67d745272c93e050d173ee04aff270950f269ce8a7ff4a19fc6a08f2fa50d5"


class ForeignModels(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.vocabulary = self.write("pieces/vocab.txt", "".join(piece + "\n" for piece in PIECES))
        self.start_retriever()
        self.write_jsonl("fruit.jsonl", ({"id": f"fruit-{i}", "text": f"Document {i} about apples, pears and {i} other fruits "
                                          "that people grow in gardens."} for i in range(50)))
        self.retro_ok("ingest", "fruit.jsonl")

    def import_model(self, form, name, weights, out):
        run = self.run_program(harness.program("retro-model"), "import", "--from", form, "--config",
                               os.path.join(GOLDENS, f"{name}.json"), "--weights", os.path.join(GOLDENS, weights), "--tokenizer",
                               self.vocabulary, "--out", self.path(out))
        self.assertEqual(run.code, 0, run)
        return self.path(out)

    def retokenised_total(self, port):
        with contextlib.closing(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=harness.WAIT_S)) as reply:
            lines = reply.read().decode().split("\n")
        return sum(float(line.split()[-1]) for line in lines if line.startswith("retro_retokenised_neighbours_total"))

    def assert_generates(self, model):
        port = harness.free_port()
        self.start_generator(model, "--metrics-listen", f"127.0.0.1:{port}")
        events = self.retro_ok("generate", "--json", PROMPT, "--seed", "3", "--max-tokens", "14", *harness.PATIENT).json()
        of_kind = lambda kind: [event[kind] for event in events if kind in event]
        retrievals, (finish,) = of_kind("retrieval"), of_kind("finish")
        self.assertGreaterEqual(len(retrievals), finish["prompt_tokens"] // CHUNK)
        for retrieval in retrievals:
            neighbours = retrieval["neighbours"]["neighbours"]
            self.assertEqual(len(neighbours), NEIGHBOURS)
            for neighbour in neighbours:
                self.assertTrue(neighbour["document_id"].startswith("fruit-"))
                self.assertIn("fruits that people grow", neighbour["chunk"]["text"])
                # Its own tokens of the text, as many as its chunk has room for.
                ids = neighbour["chunk"]["token_ids"]
                self.assertEqual(len(ids), CHUNK)
                self.assertLess(max(ids), len(PIECES))
        self.assertEqual(len(of_kind("token")), finish["generated_tokens"])
        self.assertGreater(finish["generated_tokens"], 0)
        self.assertEqual([retrieval["retokenised"] for retrieval in retrievals], [NEIGHBOURS] * len(retrievals))
        self.assertEqual(self.retokenised_total(port), NEIGHBOURS * len(retrievals))

    def test_a_norlund_model(self):
        self.assert_generates(
            self.import_model("norlund", "norlund_tiny_pads_ragged", "norlund_tiny_pads_ragged.weights.safetensors", "norlund"))

    def test_an_instructretro_model_of_two_ranks(self):
        model = self.import_model("instructretro", "instructretro_tp2", "instructretro_tp2", "ranks")
        with open(os.path.join(model, "model.safetensors"), "rb") as ours:
            self.assertEqual(hashlib.sha256(ours.read()).hexdigest(), OF_MERGED_WEIGHTS)
        self.assert_generates(model)


if __name__ == "__main__":
    harness.main()
