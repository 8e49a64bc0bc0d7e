"""A safetensors file in fp16, by Python's own library alone."""

import json
import struct

VALUES_AT_ONCE = 1 << 20


def convert(source, target):
    """F32 tensors become F16; others are copied."""
    with open(source, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        start = file.tell()
        metadata = header.pop("__metadata__", None)
        tensors = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        changed, place = ({"__metadata__": metadata} if metadata else {}), 0
        for name, facts in tensors:
            size = facts["data_offsets"][1] - facts["data_offsets"][0]
            half = facts["dtype"] == "F32"
            size = size // 2 if half else size
            changed[name] = dict(facts, dtype="F16" if half else facts["dtype"], data_offsets=[place, place + size])
            place += size
        text = json.dumps(changed).encode()
        text += b" " * (-len(text) % 8)
        with open(target, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for _, facts in tensors:
                file.seek(start + facts["data_offsets"][0])
                left = facts["data_offsets"][1] - facts["data_offsets"][0]
                while left > 0:
                    piece = file.read(min(left, 4 * VALUES_AT_ONCE))
                    left -= len(piece)
                    if facts["dtype"] == "F32":
                        piece = struct.pack(f"<{len(piece) // 4}e", *struct.unpack(f"<{len(piece) // 4}f", piece))
                    out.write(piece)
