"""Reads the tensors of a pytorch_model.bin without torch, and without running what a pickle can make run.

The file is the zip archive that torch.save has written since 1.6: data.pkl describes an OrderedDict of
tensors, data/<key> holds the bytes of each storage. The unpickler knows the handful of names that such a
description needs and refuses every other, so a hostile file is an error rather than a program.
"""

import collections
import io
import pickle
import zipfile

import numpy as np

from bundle_io import BundleError

# torch's storage classes -> (safetensors type, numpy type that has the same bytes)
STORAGES = {
    "FloatStorage": ("F32", "<f4"), "HalfStorage": ("F16", "<u2"), "BFloat16Storage": ("BF16", "<u2"),
    "DoubleStorage": ("F64", "<f8"), "LongStorage": ("I64", "<i8"), "IntStorage": ("I32", "<i4"),
    "ShortStorage": ("I16", "<i2"), "CharStorage": ("I8", "i1"), "ByteStorage": ("U8", "u1"),
    "BoolStorage": ("BOOL", "u1"),
}
PICKLE_BYTES_MAX = 64 << 20
RANK_MAX = 8


class Sealed:
    """What a pickle may make but not change afterwards: its checks were done when it was made."""

    def __setstate__(self, state):
        raise BundleError("data.pkl: found a changed tensor, expected tensors and nothing else")


class Storage(Sealed):
    """One storage of the archive; its bytes are read when a tensor wants them."""

    def __init__(self, kind, dtype, key, count):
        self.kind = kind
        self.dtype = np.dtype(dtype)
        self.key = key
        self.count = count


class Tensor(Sealed):
    def __init__(self, archive, storage, offset, shape, stride):
        self.archive = archive
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.stride = stride

    @property
    def kind(self):
        return self.storage.kind

    def array(self):
        """The elements, contiguous, as numpy's type of the same bytes."""
        flat = np.frombuffer(self.archive.storage_bytes(self.storage), dtype=self.storage.dtype)
        strides = [step * self.storage.dtype.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(flat[self.offset:], self.shape, strides, writeable=False)
        return np.ascontiguousarray(view).reshape(self.shape)  # which would give a scalar one dimension


class Archive:
    """The zip file, with the checks that reading a storage needs."""

    def __init__(self, path):
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}") from error
        except zipfile.BadZipFile as error:
            raise BundleError(f"{path}: not the zip archive of torch.save (the older format is not read; "
                              f"load it with torch and save it again): {error}") from error
        tables = [name for name in self.zip.namelist() if name.endswith("/data.pkl")]
        if len(tables) != 1:
            raise BundleError(f"{path}: found {len(tables)} entries data.pkl, expected 1")
        self.root = tables[0][: -len("data.pkl")]
        order = self.root + "byteorder"
        if order in self.zip.namelist() and self.read(order, 16) != b"little":
            raise BundleError(f"{path}: byteorder: expected little")

    def read(self, name, bytes_max):
        try:
            info = self.zip.getinfo(name)
        except KeyError:
            raise BundleError(f"{self.path}: has no entry {name}") from None
        if info.compress_type != zipfile.ZIP_STORED:
            raise BundleError(f"{self.path}: {name}: found a compressed entry, expected a stored one")
        if info.file_size > bytes_max:
            raise BundleError(f"{self.path}: {name}: found {info.file_size} bytes, expected at most "
                              f"{bytes_max}")
        try:
            return self.zip.read(info)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise BundleError(f"{self.path}: {name}: {error}") from error

    def storage_bytes(self, storage):
        expected = storage.count * storage.dtype.itemsize
        data = self.read(f"{self.root}data/{storage.key}", expected)
        if len(data) != expected:
            raise BundleError(f"{self.path}: data/{storage.key}: found {len(data)} bytes, expected "
                              f"{expected}")
        return data


def whole(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class Unpickler(pickle.Unpickler):
    def __init__(self, file, archive):
        super().__init__(file)
        self.archive = archive

    def refuse(self, what):
        raise BundleError(f"{self.archive.path}: data.pkl: found {what}, expected tensors and nothing else")

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self.rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, requires_grad, hooks: tensor
        if module == "torch" and name in STORAGES:
            return name
        return self.refuse(f"{module}.{name}")

    def persistent_load(self, pid):
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and pid[1] in STORAGES):
            self.refuse(f"the reference {pid!r:.100}")
        _, name, key, _, count = pid
        if not (isinstance(key, str) and key.isalnum() and whole(count)):
            self.refuse(f"the reference {pid!r:.100}")
        kind, dtype = STORAGES[name]
        return Storage(kind, dtype, key, count)

    def rebuild_tensor(self, storage, offset, shape, stride, *_):
        good = (isinstance(storage, Storage) and whole(offset) and isinstance(shape, tuple)
                and isinstance(stride, tuple) and len(shape) == len(stride) <= RANK_MAX
                and all(whole(size) for size in shape) and all(whole(step) for step in stride))
        if not good:
            self.refuse("a malformed tensor")
        if 0 not in shape:
            last = offset + sum((size - 1) * step for size, step in zip(shape, stride))
            if last >= storage.count:
                self.refuse(f"a tensor that ends at element {last} of a storage of {storage.count}")
            # A stride of 0 would let a small file unfold into a huge array.
            elements = 1
            for size in shape:
                elements *= size
            if elements > storage.count:
                self.refuse(f"a tensor of {elements} elements in a storage of {storage.count}")
        return Tensor(self.archive, storage, offset, shape, stride)


def read(path):
    """name -> Tensor, in the file's order."""
    archive = Archive(path)
    file = io.BytesIO(archive.read(archive.root + "data.pkl", PICKLE_BYTES_MAX))
    try:
        value = Unpickler(file, archive).load()
    except BundleError:
        raise
    except Exception as error:  # a malformed pickle fails in as many ways as there are opcodes
        what = f"{type(error).__name__}: {error}"
        raise BundleError(f"{path}: data.pkl: not a state dictionary: {what}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path}: found {type(value).__name__}, expected a dictionary of tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BundleError(f"{path}: {name!r:.100}: found {type(tensor).__name__}, expected a tensor")
    return dict(value)
