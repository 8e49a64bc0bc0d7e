"""MiniLM as an ONNX graph in the fused operators that onnxruntime's BERT optimiser arrives at.

Built node by node rather than exported and then fused, so that nothing hangs on which patterns an exporter's version
writes: EmbedLayerNormalization, Attention (Q, K and V in one product), SkipLayerNormalization with bias, BiasGelu.
Batches hold texts of one length, so that the graph needs no mask, which is its fastest form.
"""
import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

FUSED = "com.microsoft"


class BertGraph:
    def __init__(self, folder):
        with open(f"{folder}/config.json") as file:
            self.config = json.load(file)
        self.weights = load_file(f"{folder}/model.safetensors")
        self.nodes, self.constants = [], []

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def add(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def product(self, x, name, output):
        return self.add("MatMul", [x, self.constant(name + ".weight", self.weights[name + ".weight"].T)], output)

    def skip_norm(self, x, skip, norm, bias, output):
        inputs = [x, skip, self.weight(norm + ".weight"), self.weight(norm + ".bias"), self.weight(bias)]
        return self.add("SkipLayerNormalization", inputs, output, domain=FUSED, epsilon=self.config["layer_norm_eps"])

    def embeddings(self):
        names = [f"embeddings.{table}_embeddings.weight" for table in ("word", "position", "token_type")]
        names += ["embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"]
        node = helper.make_node("EmbedLayerNormalization", ["ids", "types"] + [self.weight(name) for name in names],
                                ["embedded", "unused"], domain=FUSED, epsilon=self.config["layer_norm_eps"])
        self.nodes.append(node)
        return "embedded"

    def layer(self, x, i):
        name = f"encoder.layer.{i}"
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = self.constant(f"qkv{i}", np.concatenate([self.weights[p + ".weight"].T for p in parts], axis=1))
        bias = self.constant(f"qkv_bias{i}", np.concatenate([self.weights[p + ".bias"] for p in parts]))
        attended = self.add("Attention", [x, weight, bias], f"attended{i}", domain=FUSED,
                            num_heads=self.config["num_attention_heads"])
        dense = f"{name}.attention.output.dense"
        projected = self.product(attended, dense, f"projected{i}")
        middle = self.skip_norm(projected, x, f"{name}.attention.output.LayerNorm", dense + ".bias", f"middle{i}")
        inner = self.product(middle, f"{name}.intermediate.dense", f"inner{i}")
        inner = self.add("BiasGelu", [inner, self.weight(f"{name}.intermediate.dense.bias")], f"gelu{i}", domain=FUSED)
        outer = self.product(inner, f"{name}.output.dense", f"outer{i}")
        return self.skip_norm(outer, middle, f"{name}.output.LayerNorm", f"{name}.output.dense.bias", f"layer{i}")

    def save(self, path):
        x = self.embeddings()
        for i in range(self.config["num_hidden_layers"]):
            x = self.layer(x, i)
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "length"]) for name in ("ids", "types")]
        output = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", "length", self.config["hidden_size"]])
        graph = helper.make_graph(self.nodes, "bert", inputs, [output], self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
