"""Arrays and states from files of others: PyTorch's two formats, safetensors and .npz, told by content, not by name.

Nothing in a file is run, and its declared sizes are checked before memory is asked for. Floats of 16 bits come as float32.
"""

import mmap
import os
import re
import zipfile
from math import prod
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.errors import FileError, MissingExtraError
from pcmref.store import MAX_ARRAYS, MAX_BYTES, size_limit

NESTS = ("state_dict", "model_state_dict", "model", "net", "ema")  # where training scripts keep a state, the first counts
_OTHERS = {  # beginnings of files that people take for a state
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for: `git lfs pull` fetches it",
    b"\x89HDF": "an HDF5 file of other software: read its arrays with h5py and write them by PyTorch's names with numpy.savez",
    b"\x93NUMPY": "one array (.npy); a state is many: write them by PyTorch's names with numpy.savez",
    b"\x1f\x8b": "packed with gzip: unpack it first",
    b"\x80": "a Python pickle, which runs code when it is loaded. Where it comes from, in Python: "
    "d = pickle.load(open(FILE, 'rb')); numpy.savez('state.npz', **d)",
}


def kind_of(path) -> str:
    """What a file's content is: "pcmref", "npz", "torch" or "safetensors"; FileError says what else it may be."""
    if Path(path).is_dir():
        raise FileError(f"{path}: is a folder")
    try:
        with open(path, "rb") as file:
            head = file.read(64)
        if head.startswith(store.MAGIC):
            return "pcmref"
        if head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(path) as archive:
                names = [name.rsplit("/", 1)[-1] for name in archive.namelist()]
            if "constants.pkl" in names:
                raise FileError(
                    f"{path}: a TorchScript program. Where PyTorch is installed, in Python: "
                    f"m = torch.jit.load({str(path)!r}); torch.save(m.state_dict(), 'state.pt')"
                )
            return "torch" if "data.pkl" in names else "npz"
    except zipfile.BadZipFile as error:
        raise FileError(f"{path}: a zip archive (.npz, or PyTorch's) that is cut short or damaged: {error}") from error
    except (OSError, NotImplementedError, ValueError, RuntimeError) as error:
        raise FileError(f"{path}: cannot be read: {error}") from error
    if b"l\xfc\x9cF\xf9 j\xa8P\x19" in head:  # the number that PyTorch's files before 1.6 begin with, pickled
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path) - 8:
        return "safetensors"
    what = next((what for start, what in _OTHERS.items() if head.startswith(start)), None)
    if head.startswith(b"\x89HDF") and _holds(path, b"keras_version"):
        what = (
            "an HDF5 file of Keras. Only a network that pads by half its kernels is one of ours (Keras's `same` pads one side "
            "where the stride is 2). Where Keras is, in Python, net being its pcmref.ResNet: "
            f"w = [numpy.array(v) for v in keras.models.load_model({str(path)!r}).weights]; numpy.savez('state.npz', "
            "**{k: v.transpose(3, 2, 0, 1) if v.ndim == 4 else v.T for k, v in zip(net.shapes(), w, strict=True)}); "
            "then pcmref import --eps .001 state.npz"
        )
    raise FileError(f"{path}: {what or 'neither a pcmref file nor a PyTorch, safetensors or .npz file'}")


def read(path) -> dict:
    """What a file of others holds, as it is nested there: names and arrays (torch's own in a PyTorch file); FileError."""
    readers = {"npz": read_npz, "torch": _read_torch, "safetensors": _read_safetensors}
    kind = kind_of(path)
    if kind not in readers:
        raise FileError(f"{path}: is a pcmref file, not one of others")
    return readers[kind](path)


def mappings(content: dict):
    """(the names it is nested under, mapping) of every mapping in a file, outermost first."""
    queue, seen = [((), content)], set()
    for under, mapping in queue:  # grows while it is gone through
        if id(mapping) not in seen:
            seen.add(id(mapping))
            yield under, mapping
            queue += [((*under, str(k)), v) for k, v in mapping.items() if isinstance(v, dict)]


def flat(content: dict) -> dict:
    """{path of names: array} of all arrays in a file."""
    parts = mappings(content)
    return {"/".join((*under, str(k))): v for under, part in parts for k, v in part.items() if hasattr(v, "shape")}


def is_convolution(name, value) -> bool:
    """Whether an entry is the weight of a convolution, by its name and its four axes."""
    return isinstance(name, str) and name.endswith("weight") and getattr(value, "ndim", 0) == 4


def array_of(where: str, value) -> np.ndarray:
    """A NumPy array, 16-bit floats as float32."""
    if not isinstance(value, np.ndarray):  # torch's
        value, dtype = value.detach(), str(value.dtype).removeprefix("torch.")
        if dtype.startswith("float8") or value.is_quantized or value.is_sparse or value.is_meta:
            what = "a sparse tensor" if value.is_sparse else "a tensor without values" if value.is_meta else dtype
            raise FileError(f"{where} is {what}; write it as a dense float32 tensor, times the scale it was divided by, if any")
        value = (value.float() if dtype == "bfloat16" else value).resolve_conj().resolve_neg().numpy()
    return value.astype(np.float32) if value.dtype == np.float16 else value


# ------------------------------------------------------------------------------------------------- PyTorch, safetensors


def _read_torch(path) -> dict:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading PyTorch's files needs torch: pip install torch; or, where it is installed, in Python: "
            f"d = torch.load({str(path)!r}); d = d.get('state_dict', d); "
            "numpy.savez('state.npz', **{k: v.numpy() for k, v in d.items()})"
        ) from error
    limit = size_limit(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
            if sum(m.file_size for m in members) > limit or any(m.compress_type != zipfile.ZIP_STORED for m in members):
                raise FileError(f"{path}: is packed, which PyTorch does not do, or declares over {limit} bytes; refused")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileError:
        raise
    except Exception as error:  # torch raises what it likes on a file that it cannot read
        raise FileError(f"{path}: {_why_not(path, str(error) or type(error).__name__)}") from error
    if not isinstance(content, dict):
        raise FileError(f"{path}: a PyTorch file that holds a {type(content).__name__}, not a state (model.state_dict())")
    sizes = [v.numel() * v.element_size() for _, part in mappings(content) for v in part.values() if hasattr(v, "numel")]
    if sum(sizes) > limit:  # one stored number may be seen as any number of them
        raise FileError(f"{path}: its tensors declare over {limit} bytes; refused")
    return content


def _why_not(path, message: str) -> str:
    """Why torch did not read a file without running code, and what makes it readable."""
    asked = re.search(r"GLOBAL (\S+) was not an allowed global", message)
    if asked is None:
        return f"a PyTorch file that is damaged, or cut short: {message.splitlines()[0]}"
    whole = _holds(path, b"torch.nn.modules.")
    what = "a whole pickled module" if whole else "a PyTorch file with other objects than tensors"
    nest = next((k for k in NESTS if _holds(path, b"X" + len(k).to_bytes(4, "little") + k.encode())), "state_dict")
    taken = "m.state_dict()" if whole else f"m[{nest!r}]"
    return (
        f"{what} ({asked[1]}), which runs code when it is loaded. If you trust it, in Python where that code is: "
        f"m = torch.load({str(path)!r}, weights_only=False); torch.save({taken}, 'state.pt')"
    )


def _holds(path, part: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(part) >= 0


def _read_safetensors(path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise MissingExtraError(f"{path}: reading safetensors needs the extra: pip install 'pcmref[safetensors]'") from error
    try:
        entries = deserialize(Path(path).read_bytes())
    except (SafetensorError, ValueError, OSError) as error:
        raise FileError(f"{path}: a safetensors file that is damaged, or cut short: {error}") from error
    dtypes = {f"{k}{8 * n}": f"<{k.lower()}{n}" for k in "FIU" for n in (1, 2, 4, 8) if (k, n) != ("F", 1)} | {"BF16": "<u2"}
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in dtypes:
            raise FileError(f"{path}: {name!r} is {entry['dtype']}; write it as F32, times the scale it was divided by, if any")
        values = np.frombuffer(entry["data"], dtypes[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        arrays[name] = values.reshape(entry["shape"])
    return arrays


# ---------------------------------------------------------------------------------------------------------------- .npz


def read_npz(path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name: numbers only, no pickles, each size checked against its header before reading."""
    arrays, total, name = {}, 0, ""
    try:
        with zipfile.ZipFile(path) as archive:
            limit = size_limit(path, max_bytes)
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                total += member.file_size
                if total > limit or len(archive.infolist()) > MAX_ARRAYS:
                    raise FileError(f"{path}: declares over {limit} bytes or {MAX_ARRAYS} arrays; refused")
                if name in arrays or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise FileError(f"{path}: {name!r} is there twice, or packed as numpy.savez does not; refused")
                with archive.open(member) as file:
                    arrays[name] = _npy(f"{path}: {name!r}", file, member.file_size)
    except FileError:
        raise
    except Exception as error:  # whatever hostile bytes make zipfile and NumPy raise
        raise FileError(f"{path}: not a readable .npz file, at {name!r}: {error!r}") from error
    return arrays


def _npy(where: str, file, size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise FileError(f"{where}: .npy version {version} is not read; save it with numpy.savez")
    shape, fortran_order, dtype = read_header[version](file)
    if dtype.kind not in "fiub":
        raise FileError(f"{where}: has dtype {dtype}; only arrays of numbers are read (no pickles)")
    expected = prod(shape) * dtype.itemsize
    if expected != size - file.tell():
        raise FileError(f"{where}: its header declares {expected} bytes, the file holds {size - file.tell()}")
    values = np.frombuffer(read_up_to(file, expected), dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


def read_up_to(file, n: int) -> bytearray:
    """At most n bytes, in pieces: memory grows with what is there, not with what a header declares."""
    content = bytearray()
    while len(content) < n and (piece := file.read(min(n - len(content), 1 << 20))):
        content += piece
    return content
