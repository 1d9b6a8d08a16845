"""The file formats of a bundle: safetensors, spm.model's piece count, JSON with duplicate keys refused.

Shared by generate.py and import_checkpoint.py. Needs the standard library and numpy alone.
"""

import json
import os
import struct

import numpy as np

SOURCE_TOKEN = "<|source|>"
MASK_TOKEN = "[MASK]"

# safetensors type -> bytes per element, for every type that a float checkpoint may hold beside its weights.
TYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
              "BOOL": 1}
FLOAT_TYPES = ("F32", "F16", "BF16")


class BundleError(Exception):
    """What is wrong with a file, in words the user can act on."""


def read_json(path):
    """The JSON object in `path`; duplicate keys are refused."""

    def no_duplicates(pairs):
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise BundleError(f"{path}: the key {key!r} occurs twice")
        return dict(pairs)

    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file, object_pairs_hook=no_duplicates)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path}: found {type(value).__name__} at the top, expected an object")
    return value


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def shape_elements(shape):
    count = 1
    for size in shape:
        count *= size
    return count


def write_safetensors(path, entries):
    """Writes tensors in the given order. entries: (name, type, shape, function that yields byte chunks)."""
    header = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, kind, shape, _ in entries:
        size = shape_elements(shape) * TYPE_BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = f"{path}.partial"
    with open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name, kind, shape, chunks in entries:
            before = file.tell()
            for chunk in chunks():
                file.write(chunk)
            expected = shape_elements(shape) * TYPE_BYTES[kind]
            if file.tell() - before != expected:
                raise BundleError(f"{name}: wrote {file.tell() - before} bytes, expected {expected}")
    os.replace(partial, path)


def read_safetensors_header(path):
    """name -> (type, shape). Checks what the importer relies on; the service checks the whole file."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                raise BundleError(f"{path}: found {len(prefix)} bytes, expected a safetensors file")
            (length,) = struct.unpack("<Q", prefix)
            if length > size - 8:
                raise BundleError(f"{path}: header size: found {length}, the file has {size} bytes")
            header = json.loads(file.read(length))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path}: the header is not JSON: {error}") from error
    header.pop("__metadata__", None)
    return {name: (info["dtype"], tuple(info["shape"])) for name, info in header.items()}


def spm_piece_count(path):
    """Number of pieces of a SentencePiece model: the repeated field 1 of its protobuf."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error

    def varint(at):
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise BundleError(f"{path}: not a SentencePiece model")
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at += 1
            shift += 7
            if byte < 0x80:
                return value, at

    count = at = 0
    while at < len(data):
        key, at = varint(at)
        if key & 7 == 2:
            size, at = varint(at)
            at += size
            count += key >> 3 == 1
        elif key & 7 == 0:
            _, at = varint(at)
        elif key & 7 == 5:
            at += 4
        elif key & 7 == 1:
            at += 8
        else:
            raise BundleError(f"{path}: not a SentencePiece model")
    if at != len(data) or count == 0:
        raise BundleError(f"{path}: not a SentencePiece model")
    return count


def to_bytes(values, kind):
    """float32 values as little-endian bytes of a float type; bfloat16 rounds to nearest even."""
    values = np.ascontiguousarray(values, dtype="<f4")
    if kind == "F32":
        return values.tobytes()
    if kind == "F16":
        return values.astype("<f2").tobytes()
    bits = values.view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
