"""Model folders that are not whole: the service names the file, the tensor and what is wrong with it, and does not start."""

import hashlib
import json
import os
import shutil
import struct
import unittest

import harness

HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS = 8, 1, 2, 16, 128
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]

MODEL_CONFIG = {
    "width": 32, "ffw_width": 64, "heads": 2, "head_size": 16, "layers": 3, "cca_layers": [2, 3], "encoder_width": 32,
    "encoder_ffw_width": 64, "encoder_heads": 2, "encoder_head_size": 16, "encoder_layers": 1, "encoder_cca_layers": [1],
    "vocabulary": 16384, "chunk_length": 64, "neighbour_length": 128, "max_length": 1024, "mask_pad": True}


def bert_tensors():
    def tensor(*shape):
        count = 1
        for size in shape:
            count *= size
        return "F32", list(shape), struct.pack(f"<{count}f", *((i * 7 % 13 - 6) / 20 for i in range(count)))

    tensors = {"embeddings.word_embeddings.weight": tensor(len(VOCABULARY), HIDDEN),
               "embeddings.position_embeddings.weight": tensor(POSITIONS, HIDDEN),
               "embeddings.token_type_embeddings.weight": tensor(2, HIDDEN)}
    linears = [("attention.self.query", HIDDEN, HIDDEN), ("attention.self.key", HIDDEN, HIDDEN),
               ("attention.self.value", HIDDEN, HIDDEN), ("attention.output.dense", HIDDEN, HIDDEN),
               ("intermediate.dense", INTERMEDIATE, HIDDEN), ("output.dense", HIDDEN, INTERMEDIATE)]
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{i}." for i in range(LAYERS)):
        for name, outputs, inputs in linears:
            tensors[f"{layer}{name}.weight"] = tensor(outputs, inputs)
            tensors[f"{layer}{name}.bias"] = tensor(outputs)
        norms += [f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"]
    for name in norms:
        tensors[f"{name}.weight"] = tensor(HIDDEN)
        tensors[f"{name}.bias"] = tensor(HIDDEN)
    return tensors


class EmbedderFolder(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        self.write("bert/config.json", json.dumps({
            "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "intermediate_size": INTERMEDIATE, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
            "vocab_size": len(VOCABULARY)}))
        self.write("bert/vocab.txt", "\n".join(VOCABULARY) + "\n")
        self.weights = self.path("bert", "model.safetensors")
        self.tensors = bert_tensors()
        harness.write_safetensors(self.weights, self.tensors)

    def assert_refused(self, *words):
        arguments = [*self.retriever_arguments(embedder=self.path("bert")), "--listen", "127.0.0.1:0"]
        self.assert_refuses_to_start("retro-retriever", arguments, *words)
        self.assertFalse(os.path.exists(self.path("store")), "a store was made for an embedder that there is not")

    def test_a_whole_one_is_served(self):
        self.start_retriever(embedder=self.path("bert"))
        self.write("a.txt", "any text at all")
        self.retro_ok("ingest", "a.txt")
        self.assertIn("any text", self.retro_ok("search", "text").out)

    def test_a_missing_tensor(self):
        del self.tensors["encoder.layer.0.output.dense.bias"]
        harness.write_safetensors(self.weights, self.tensors)
        self.assert_refused(self.weights, "encoder.layer.0.output.dense.bias")

    def test_a_misshapen_tensor(self):
        name = "encoder.layer.0.intermediate.dense.weight"
        dtype, shape, data = self.tensors[name]
        self.tensors[name] = (dtype, shape[::-1], data)
        harness.write_safetensors(self.weights, self.tensors)
        self.assert_refused(self.weights, name, "[8, 16]", "[16, 8]")

    def test_a_truncated_file(self):
        os.truncate(self.weights, os.path.getsize(self.weights) // 2)
        self.assert_refused(self.weights)

    def test_missing_files(self):
        for name in ("config.json", "vocab.txt", "model.safetensors"):
            os.rename(self.path("bert", name), self.path("away"))
            self.assert_refused(self.path("bert"))
            os.rename(self.path("away"), self.path("bert", name))

    def test_no_folder(self):
        shutil.rmtree(self.path("bert"))
        self.assert_refused(self.path("bert"))


class ModelFolder(harness.EndToEndTest):
    def setUp(self):
        super().setUp()
        config = self.write("tiny.json", json.dumps(MODEL_CONFIG))
        made = self.run_program(harness.program("retro-model"), "init", "--config", config, "--tokenizer", harness.TOKENIZER,
                                "--out", self.path("model"))
        self.assertEqual(made.code, 0, made)
        self.weights = self.path("model", "model.safetensors")
        self.tensors = harness.read_safetensors(self.weights)
        with open(self.path("model", "config.json"), encoding="utf-8") as f:
            self.config = json.load(f)

    def write_weights(self):
        """The tensors, and a config.json that takes this file for the model's."""
        harness.write_safetensors(self.weights, self.tensors)
        with open(self.weights, "rb") as f:
            self.config["revision"] = hashlib.sha256(f.read()).hexdigest()
        self.write("model/config.json", json.dumps(self.config))

    def assert_refused(self, *words):
        self.assert_refuses_to_start("retro-generator", ["--model", self.path("model"), "--listen", "127.0.0.1:0"], *words)

    def test_a_whole_one_is_served(self):
        self.write_weights()  # what the other tests change, unchanged
        self.start_generator(self.path("model"))

    def test_check_config_refuses_what_a_start_would(self):
        arguments = ["--model", self.path("model"), "--check-config"]
        self.assertEqual(self.run_program(harness.program("retro-generator"), *arguments).code, 0)
        for flags, word in ((["--device", "abacus"], "abacus"), (["--device", "cuda:120"], "CUDA"),
                            (["--cache-mib", "1", "--dtype", "fp32"], "--cache-mib")):
            with self.subTest(flags=flags):
                self.config["model"]["max_length"] = 8192
                self.write("model/config.json", json.dumps(self.config))
                self.assert_refuses_to_start("retro-generator", [*arguments, *flags], word)

    def test_a_missing_tensor(self):
        name = sorted(self.tensors)[len(self.tensors) // 2]
        del self.tensors[name]
        self.write_weights()
        self.assert_refused(self.weights, name)

    def test_a_misshapen_tensor(self):
        name = next(n for n, (_, shape, _) in sorted(self.tensors.items()) if len(shape) == 2 and shape[0] != shape[1])
        dtype, shape, data = self.tensors[name]
        self.tensors[name] = (dtype, shape[::-1], data)
        self.write_weights()
        self.assert_refused(self.weights, name)

    def test_a_tensor_too_many(self):
        self.tensors["nonsense"] = ("F32", [1], b"\0\0\0\0")
        self.write_weights()
        self.assert_refused(self.weights, "nonsense")

    def test_another_models_weights(self):
        self.config["revision"] = "0" * 64
        self.write("model/config.json", json.dumps(self.config))
        self.assert_refused(self.weights, "SHA-256")

    def test_a_truncated_file(self):
        os.truncate(self.weights, os.path.getsize(self.weights) // 2)
        self.assert_refused(self.weights)

    def test_missing_files(self):
        for name in ("config.json", "tokenizer.model", "model.safetensors"):
            os.rename(self.path("model", name), self.path("away"))
            self.assert_refused(self.path("model"))
            os.rename(self.path("away"), self.path("model", name))

    def test_a_config_that_is_none(self):
        self.write("model/config.json", "{")
        self.assert_refused(self.path("model", "config.json"))

    def test_no_folder(self):
        shutil.rmtree(self.path("model"))
        self.assert_refused(self.path("model"))


if __name__ == "__main__":
    harness.main()
