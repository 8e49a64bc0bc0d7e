"""Prompt to text with neighbours, over both services: alignment, one retrieval a chunk, seeds, replay, a retriever that is away."""

import base64
import json
import math
import signal
import threading
import unittest

import harness
from model_folder_test import MODEL_CONFIG

PROMPT = "Which fruits do people grow in their own gardens today?"  # ten words
CHUNK = 64


class Generate(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        config = self.write("tiny.json", json.dumps(MODEL_CONFIG))
        self.run_program(harness.program("retro-model"), "init", "--config", config, "--tokenizer", harness.TOKENIZER, "--out",
                         self.path("model"))
        self.retriever = self.start_retriever()
        self.write_jsonl("fruit.jsonl", ({"id": f"fruit-{i}", "text": f"Document {i} about apples, pears and {i} other fruits "
                                          "that people grow in gardens."} for i in range(50)))
        self.retro_ok("ingest", "fruit.jsonl")

    def generate(self, *arguments, prompt=PROMPT):
        """Tokens, retrievals and the finish of a generation, which is as long as it may be."""
        events = self.retro_ok("generate", "--json", prompt, *harness.NO_END_OF_TEXT, *harness.PATIENT, *arguments).json()
        of_kind = lambda kind: [event[kind] for event in events if kind in event]
        (finish,) = of_kind("finish")
        return of_kind("token"), of_kind("retrieval"), finish

    @staticmethod
    def text_of(tokens):
        return "".join(token["text"] for token in tokens)

    def test_ten_words_are_looked_up_and_every_64_tokens_after_them(self):
        self.start_generator(self.path("model"))
        tokens, retrievals, finish = self.generate("--seed", "3", "--max-tokens", "200")
        prompt = finish["prompt_tokens"]
        self.assertLess(prompt, CHUNK)
        spans = [(r["token_begin"], r["token_end"]) for r in retrievals]
        self.assertEqual(spans, [(0, prompt)] + [(prompt + i * CHUNK, prompt + (i + 1) * CHUNK) for i in range(3)])
        for retrieval in retrievals:
            neighbours = retrieval["neighbours"]["neighbours"]
            self.assertEqual(len(neighbours), 2)
            for neighbour in neighbours:
                self.assertIn("fruits that people grow", neighbour["chunk"]["text"])
                self.assertTrue(neighbour["document_id"].startswith("fruit-"))
        self.assertEqual(len(tokens), 200)
        self.assertEqual([token["position"] for token in tokens], list(range(prompt, prompt + 200)))
        # Counted as in the paper, ten words are no chunk: the first look-up comes with the 64th token.
        _, retrievals, _ = self.generate("--seed", "3", "--max-tokens", "200", "--alignment", "paper")
        self.assertEqual([(r["token_begin"], r["token_end"]) for r in retrievals], [(i * CHUNK, (i + 1) * CHUNK) for i in range(3)])

    def test_neighbours_come_from_the_collection_that_is_named(self):
        self.start_generator(self.path("model"))
        self.retro_ok("collections", "create", "berries")
        self.write_jsonl("berries.jsonl", ({"id": f"berry-{i}", "text": f"Document {i} about berries that grow wild."} for i in range(9)))
        self.retro_ok("ingest", "berries.jsonl", "--collection", "berries")
        for flags, kind in (((), "fruit-"), (("--collection", "berries"), "berry-")):
            _, retrievals, _ = self.generate("--seed", "3", "--max-tokens", "70", *flags)
            found = [n["document_id"] for r in retrievals for n in r["neighbours"]["neighbours"]]
            self.assertTrue(found and all(name.startswith(kind) for name in found), found)
        self.retro_ok("collections", "delete", "berries", "--yes")
        run = self.retro("generate", PROMPT, "--max-tokens", "70", "--collection", "berries")
        self.assertNotEqual(run.code, 0, run)
        self.assertIn("berries", run.err)

    def test_people_see_text_and_neighbours(self):
        self.start_generator(self.path("model"))
        seventy = ("--seed", "3", "--max-tokens", "70")
        run = self.retro_ok("generate", PROMPT, *seventy, "--show-neighbours", *harness.NO_END_OF_TEXT, *harness.PATIENT)
        self.assertEqual(run.err.count("[tokens "), 2, run)
        self.assertIn("fruit-", run.err)
        tokens, _, _ = self.generate(*seventy)
        self.assertEqual(run.out.rstrip("\n"), self.text_of(tokens).rstrip("\n"))

    def test_a_seed_repeats_a_run_and_another_does_not(self):
        self.start_generator(self.path("model"))
        texts = [self.text_of(self.generate("--seed", seed)[0]) for seed in ("3", "3", "4")]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])
        tokens, _, finish = self.generate()  # the seed that was drawn is told
        self.assertEqual(self.text_of(self.generate("--seed", finish["seed"])[0]), self.text_of(tokens))

    def test_a_saved_run_is_replayed_without_the_retriever(self):
        self.start_generator(self.path("model"))
        saved = self.retro_ok("generate", PROMPT, "--max-tokens", "150", "--save-run", "run.jsonl", *harness.PATIENT).out
        self.retro_ok("delete", *(f"fruit-{i}" for i in range(50)))
        self.assertEqual(self.retriever.stop(), 0)
        self.assertEqual(self.retro_ok("generate", PROMPT, "--max-tokens", "150", "--replay", "run.jsonl").out, saved)

    def test_a_score_is_what_generate_says_of_a_prompt(self):
        self.start_generator(self.path("model"))
        context, text = PROMPT, f" {PROMPT}" * 12  # cut into the same tokens, together or not
        tokens, retrievals, _ = self.generate("--echo", "--alignment", "paper", "--max-tokens", "1", prompt=context + text)
        lines = self.retro_ok("score", "--context", context, text, "--alignment", "paper", "--json", *harness.PATIENT).json()
        (piece,), summary = [line for line in lines if line["event"] == "piece"], lines[-1]
        expected = tokens[-1 - len(piece["tokens"]):-1]
        self.assertEqual(piece["tokens"], [token["id"] for token in expected])
        self.assertEqual(piece["raw"], [token["raw"] for token in expected])
        for one, other in zip(piece["logprobs"], expected):
            self.assertAlmostEqual(one, other["logprob"], places=4)
        self.assertEqual((summary["chunks"], summary["tokens"]), (len(retrievals), len(expected)))
        self.assertGreater(len(retrievals), 1)
        bits = -sum(piece["logprobs"]) / math.log(2) / len(text.encode())
        self.assertAlmostEqual(summary["bits_per_byte"], bits, places=4)
        plain = self.retro_ok("score", "--context", context, text, "--no-retrieval", "--json").json()[-1]
        self.assertEqual(plain["chunks"], 0)
        self.assertNotEqual(plain["logprob"], summary["logprob"])

    def test_a_file_longer_than_the_context_is_scored_whole(self):
        self.start_generator(self.path("model"))
        text = "".join(f"Sentence {i} of a long text, or \u82f9\u679c {i}.\n" for i in range(300))
        self.write("long.txt", text)
        lines = self.retro_ok("score", "--file", "long.txt", "--json", *harness.PATIENT).json()
        pieces = [line for line in lines if line["event"] == "piece"]
        self.assertGreater(sum(len(piece["tokens"]) for piece in pieces), 2 * MODEL_CONFIG["max_length"])
        self.assertEqual(b"".join(base64.b64decode(raw) for piece in pieces for raw in piece["raw"]).decode(), text)
        self.assertEqual(lines[-1]["bytes"], len(text.encode()))
        self.assertIn("long.txt: ", self.retro_ok("score", "--file", "long.txt", *harness.PATIENT).out)

    def test_emoji_come_and_go_whole(self):
        self.start_generator(self.path("model"))
        prompt = "\U0001f34e\U0001f468\u200d\U0001f469\u200d\U0001f467 pommes \u2014 \u82f9\u679c, \u03bc\u03ae\u03bb\u03b1"
        tokens, _, finish = self.generate("--seed", "5", "--max-tokens", "100", "--temperature", "3", "--echo", prompt=prompt)
        raw = b"".join(base64.b64decode(token["raw"]) for token in tokens)
        self.assertTrue(raw.startswith(prompt.encode()), raw[:100])
        self.assertEqual(len(tokens), finish["prompt_tokens"] + finish["generated_tokens"])
        # Every text is whole characters: what is broken is shown as such, once, and nothing is dropped or doubled.
        self.assertEqual(self.text_of(tokens), raw.decode("utf-8", "replace"))

    def test_a_deleted_document_is_no_neighbour_and_a_filter_holds(self):
        self.start_generator(self.path("model"))
        self.retro_ok("delete", *(f"fruit-{i}" for i in range(48)))
        _, retrievals, _ = self.generate("--max-tokens", "1")
        found = sorted(n["document_id"] for n in retrievals[0]["neighbours"]["neighbours"])
        self.assertEqual(found, ["fruit-48", "fruit-49"])
        _, retrievals, _ = self.generate("--max-tokens", "1", "--filter", 'id = "fruit-49"')
        self.assertEqual([n["document_id"] for n in retrievals[0]["neighbours"]["neighbours"]], ["fruit-49"])

    def test_a_retriever_that_is_down_and_comes_back(self):
        self.assertEqual(self.retriever.stop(), 0)
        self.start_generator(self.path("model"))  # starts all the same
        run = self.retro("generate", PROMPT, "--max-tokens", "5")
        self.assertEqual(run.code, 1, run)
        self.assert_one_line(run, "retro", f"127.0.0.1:{self.retriever_port}", "is retro-retriever running", "RETRIEVAL_FAILED")
        self.assertEqual(run.out, "")
        tokens, retrievals, _ = self.generate("--max-tokens", "5", "--go-on-without")
        self.assertEqual(len(tokens), 5)
        self.assertEqual(retrievals[0]["degradation"], "DEGRADATION_UNAVAILABLE")
        tokens, retrievals, _ = self.generate("--max-tokens", "5", "--no-retrieval")
        self.assertEqual((len(tokens), retrievals), (5, []))
        self.start_retriever()
        harness.wait_for("the generator finds it", lambda: self.retro("generate", PROMPT, "--max-tokens", "5").code == 0)

    def test_the_generator_is_down(self):
        for command in (["generate", PROMPT], ["score", PROMPT], ["health", "generator"]):
            run = self.retro(*command)
            self.assertEqual(run.code, 3, run)
            self.assert_one_line(run, "retro", f"127.0.0.1:{self.generator_port}", "is it running")

    def test_bad_requests_name_the_field(self):
        self.start_generator(self.path("model"))
        for arguments in (["--max-tokens", "100000"], ["--offset", "64"], ["--logit-bias", "99999=1"]):
            run = self.retro("generate", PROMPT, *arguments)
            self.assertEqual(run.code, 1, run)
            self.assert_one_line(run, "retro", "field")
        run = self.retro("generate", "")
        self.assertEqual(run.code, 2, run)
        self.assert_one_line(run, "retro", "prompt is empty")

    def test_a_port_in_use_and_an_address_beyond_loopback(self):
        generator = self.start_generator(self.path("model"))
        arguments = ["--model", self.path("model")]
        self.assert_refuses_to_start("retro-generator", [*arguments, "--listen", generator.address], generator.address, "--listen")
        self.assert_refuses_to_start("retro-generator", [*arguments, "--listen", "0.0.0.0:0"], "0.0.0.0:0",
                                     "--allow-plaintext-beyond-loopback")

    def test_sigterm_in_a_generation_ends_both_in_time(self):
        generator = self.start_generator(self.path("model"), "--drain-ms-max", str(3000 * harness.TIME_FACTOR))
        endless = ["--slide", "--max-tokens", str(15 * MODEL_CONFIG["max_length"]), "--seed", "3", *harness.NO_END_OF_TEXT,
                   *harness.PATIENT]
        command = self.popen([harness.program("retro"), "generate", PROMPT, "--json", *endless])
        begin = command.stdout.readline()
        self.assertTrue(begin)
        generator.process.send_signal(signal.SIGTERM)
        patience = threading.Timer(harness.WAIT_S + 3 * harness.TIME_FACTOR, command.kill)
        patience.start()
        events = [json.loads(line) for line in (begin + command.stdout.read()).decode().splitlines()]
        patience.cancel()
        self.assertEqual(events[-1].get("finish", {}).get("reason"), "FINISH_REASON_DRAINED", events[-1])
        self.assertEqual(command.wait(harness.WAIT_S), 1)
        self.assertEqual(generator.process.wait(harness.WAIT_S), 0)


if __name__ == "__main__":
    harness.main()
