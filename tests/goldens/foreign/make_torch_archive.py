"""Writes torch_archive.pt: what torch.save writes, without torch. Its tensors are a parameter, a transposed view into a larger storage
and bfloat16 values, in nested dictionaries, beside plain values, an object and a call that must never run.

    python tests/goldens/foreign/make_torch_archive.py
"""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils", "training")}
sys.modules.update(modules)


def named(module, name, kind):
    kind.__module__, kind.__qualname__, kind.__name__ = module, name, name
    setattr(modules[module], name, kind)
    return kind


FloatStorage = named("torch", "FloatStorage", type("FloatStorage", (), {}))
BFloat16Storage = named("torch", "BFloat16Storage", type("BFloat16Storage", (), {}))
Arguments = named("training", "Arguments", type("Arguments", (), {}))
rebuild_tensor = named("torch._utils", "_rebuild_tensor_v2", lambda *arguments: None)
rebuild_parameter = named("torch._utils", "_rebuild_parameter", lambda *arguments: None)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


Storage = collections.namedtuple("Storage", "type key data elements")


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", value.type, value.key, "cpu", value.elements
        return None


def tensor(storage, offset, shape, strides):
    return Call(rebuild_tensor, storage, offset, shape, strides, False, collections.OrderedDict())


floats = Storage(FloatStorage, "0", struct.pack("<8f", *range(8)), 8)
halves = Storage(BFloat16Storage, "1", b"".join(struct.pack("<f", x)[2:] for x in (1.0, -2.5, 96.0)), 3)
arguments = Arguments()
arguments.swiglu, arguments.layers, arguments.eps, arguments.name, arguments.ranks = True, 9, 1e-5, "tiny", [0, 1]
root = {
    "checkpoint_version": 3.0,
    "args": arguments,
    "optimizer": Call(os.system, "touch torch-archive-was-run"),
    "model": {
        "plain": tensor(floats, 0, (2, 3), (3, 1)),
        "nested": collections.OrderedDict(
            view=Call(rebuild_parameter, tensor(floats, 1, (3, 2), (1, 4)), True, collections.OrderedDict()),
            deeper={"halves": tensor(halves, 0, (3,), (1,)), "_extra_state": None},
        ),
    },
}
pickled = io.BytesIO()
Pickler(pickled, 2).dump(root)
with zipfile.ZipFile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_archive.pt"), "w", zipfile.ZIP_STORED) as archive:
    for name, data in (("data.pkl", pickled.getvalue()), ("byteorder", b"little"), ("data/0", floats.data), ("data/1", halves.data)):
        archive.writestr(zipfile.ZipInfo("torch_archive/" + name), data)
