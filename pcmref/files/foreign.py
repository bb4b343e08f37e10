"""Files of others: PyTorch's two formats, safetensors and .npz, told by content, not by name; the state of a ResNet in them.

Nothing in a file is run, and its declared sizes are checked before memory is asked for. Floats of 16 bits come as float32.
"""

import mmap
import os
import re
import zipfile
from collections import Counter
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pcmref import store
from pcmref.errors import FileError, MissingExtraError
from pcmref.nn.resnet import ResNet
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


# --------------------------------------------------------------------------------------------------- a state, by whatever names

_CONV, _NORM = r"(?:0|conv|convolution)\.", r"(?:1|bn|norm|normalization)\."
_STEM, _SHORTCUT = r"\.(?:stem|init_block)\.", r"\.(?:shortcut|skip|identity_conv|downsample|right)\."
NAMES = (  # what others call the parts of a network, and what torchvision does; each is looked for in turn
    (r"(?<=\w)\._(?:orig_mod|\w+_module)(?=\.)", ""),  # a wrapper of a part
    (r"\.embedder\.embedder\.", ".encoder.stem."),
    (r"\.stack(\d{1,3})a\.", r".stack\1.0."),  # the first block of a stage by itself
    (r"\.stack(\d{1,3})b\.(\d{1,3})\.", lambda m: f".stack{m[1]}.{int(m[2]) + 1}."),
    (r"(\.unit\d+)\.body\.", r"\1."),
    (r"\.layer0(?=\.(?:conv|bn)1\.)", ""),
    (rf"\.layer\.(\d)\.{_CONV}", lambda m: f".conv{int(m[1]) + 1}."),
    (rf"\.layer\.(\d)\.{_NORM}", lambda m: f".bn{int(m[1]) + 1}."),
    (r"\.(?:residual_function|left)\.([036])\.", lambda m: f".conv{int(m[1]) // 3 + 1}."),  # convolution, batch norm and ReLU
    (r"\.(?:residual_function|left)\.([147])\.", lambda m: f".bn{int(m[1]) // 3 + 1}."),  # in turn
    (_SHORTCUT + _CONV, ".downsample.0."),
    (_SHORTCUT + _NORM, ".downsample.1."),
    (rf"{_STEM}(?:conv1\.|{_CONV})", ".conv1."),
    (rf"{_STEM}(?:bn1\.|{_NORM})", ".bn1."),
    (rf"\.conv_?(\d)\.{_CONV}", r".conv\1."),
    (rf"\.conv_?(\d)\.{_NORM}", r".bn\1."),
    (r"\.conv_(\d)\.", r".conv\1."),
    (r"\.conv_?(?:In|in|0)?\.", ".conv1."),
    (r"\.(?:bn|norm)_?(?:In|in|0)?\.", ".bn1."),
    (r"\.(?:bn|norm|batch_?norm)_?(\d)\.", r".bn\1."),
)
_BLOCK = re.compile(
    r"(.*)\.(?:(?:layer|stage|stack|res|group|block)s?[._]?(\d{1,3})|conv(\d{1,3})_x)"
    r"\.(?:(?:block|layer|unit)s?[._]?)?(\d{1,3})(?=\.)"
)  # wrapper, stage and block, these counted from wherever
_ZEROS_BEHIND = re.compile(r"(?:^|\.)stack\d+a\.")  # a-martyn/resnet, which alone names its stages so
_BESIDE = re.compile(
    r"\w*(?:criterion|loss|metric|accuracy|optimi[sz]er)\w*(?:\..*)?|(?:normali[sz]\w*\.)?(?:mean|std|mu|sigma)"
)
BATCH_NORM = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}  # that changes nothing
COUNTERS = ("num_batches_tracked", "n_averaged")
_PARAMETRISED = {  # names of weights that are computed from others, and what makes plain ones of them in every such module m
    r"\.weight_mask$": "torch.nn.utils.prune.remove(m, 'weight')",
    r"\.weight_g$": "torch.nn.utils.remove_weight_norm(m)",
    r"\.weight_u$": "torch.nn.utils.remove_spectral_norm(m)",
    r"\.parametrizations\.weight\.": "torch.nn.utils.parametrize.remove_parametrizations(m, 'weight')",
}


class _Network(NamedTuple):
    """A network in a file: the mappings it is nested in, the prefix of its names, and how the names read as torchvision's."""

    under: tuple[str, ...]
    prefix: str
    entries: dict
    names: dict[str, str]  # torchvision's, behind the prefix: theirs
    renamed: set[str]


def read_state(path, zeros_behind: bool = False) -> tuple[dict[str, np.ndarray], str]:
    """(state by torchvision's names, what was taken, renamed or left out in one line, "" if nothing); FileError.

    Of several networks in a file the first counts, by the order of NESTS. `zeros_behind`: a shortcut without weights puts its
    channels of zeros behind the others, not half before and half behind.
    """
    content = read(path)
    found = [network for under, entries in mappings(content) for network in _networks(path, under, entries)]
    found.sort(key=lambda n: [NESTS.index(k) if k in NESTS else len(NESTS) for k in (*n.under, *n.prefix.split(".")[:-1])])
    if not found:
        raise FileError(f"{path}: holds no state of a ResNet: no array 'NAME.weight' is a convolution's [O, C, kH, kW]")
    (under, prefix, entries, names, renamed), *others = found
    head = _head(prefix, {name: entries[theirs] for name, theirs in names.items()})
    if head not in (None, f"{prefix}fc."):
        renamed.add(f"{head.removeprefix(prefix).strip('.')} as fc")
    last = {} if head is None else {f"{head}{k}": f"fc.{k}" for k in ("weight", "bias")}
    state, taken = {}, set()
    for name, theirs in names.items():
        if name in last or not _is_beside(name, prefix, head, entries[theirs]):
            new = last.get(name, name.removeprefix(prefix) if name.startswith(prefix) else theirs)
            if new in state:
                raise FileError(f"{path}: holds {new!r} and {theirs!r}, which mean the same")
            state[new] = array_of(f"{path}: {theirs!r}", entries[theirs])
            taken.add(theirs)
    said = [f"read the state under {'/'.join(under)!r}"] if under else []
    said += [f"not the one under {'/'.join((*other.under, other.prefix)).strip('/')!r}" for other in others]
    said += ([f"took {prefix!r} off every name"] if prefix else []) + sorted(renamed)
    left = [k for k in (content if under else ()) if k != under[0]] + [
        str(k).removeprefix(prefix) for k in entries if k not in taken
    ]
    said += [f"left out {_listed(left)}"] if left else []
    state, more = _pad_shortcuts(state, zeros_behind or any(map(_ZEROS_BEHIND.search, names.values())))
    return state, "; ".join(said + more)


def _networks(path, under: tuple, entries: dict) -> list[_Network]:
    """The networks of a mapping: one for every P with P + "conv1.weight" and P + "layer1.0.conv1.weight", P being any prefix.

    Where there is none, but a convolution, the whole mapping, for the error to name what it holds.
    """
    arrays = {k: v for k, v in entries.items() if isinstance(k, str) and hasattr(v, "ndim") and not k.endswith(COUNTERS)}
    if max(map(len, arrays), default=0) > 1000:
        raise FileError(f"{path}: an array has a name of over 1,000 characters; refused")
    for name, remedy in product(arrays, _PARAMETRISED):
        if re.search(remedy, f".{name}"):
            raise FileError(
                f"{path}: {name!r}: the weights are computed from other arrays. Where the network comes from, in Python: "
                f"{_PARAMETRISED[remedy]} for every such module m, then save its state_dict()"
            )
    if not any(map(is_convolution, arrays, arrays.values())):
        return []
    names, renamed = _torchvisions(path, arrays)
    prefixes = [name.removesuffix("conv1.weight") for name in names if name.endswith("conv1.weight")]
    prefixes = [prefix for prefix in prefixes if f"{prefix}layer1.0.conv1.weight" in names]
    return [_Network(under, prefix, entries, names, renamed) for prefix in prefixes or [""]]


def _torchvisions(path, theirs) -> tuple[dict[str, str], set[str]]:
    """({name as torchvision has it, behind whatever prefix: theirs}, what was renamed): by NAMES, stages and blocks counted."""
    renamed, changed = set(), {}

    def say(old: str, new: str) -> str:
        parts = [re.sub(r"[._]?\d+", "", part).strip(".") for part in (old, new)]
        if parts[0] != parts[1]:
            renamed.add(f"{parts[0]} as {parts[1]}" if parts[1] else f"took {parts[0]!r} out")
        return new

    for name in theirs:
        changed[name] = f".{name}"
        for pattern, ours in NAMES:
            expand = ours if callable(ours) else partial(_expand, ours)
            changed[name] = re.sub(pattern, lambda m, expand=expand: say(m[0], expand(m)), changed[name])
    places = {name: match for name, new in changed.items() if (match := _BLOCK.match(new))}
    numbers = {name: (m[1], int(m[2] or m[3]), int(m[4])) for name, m in places.items()}
    first = {}  # of a wrapper's stages, and of its blocks
    for wrapper, *at in numbers.values():
        first[wrapper] = [min(pair) for pair in zip(first.get(wrapper, at), at, strict=True)]
    names = {}
    for name, new in changed.items():
        if name in places:
            wrapper, stage, block = numbers[name]
            ours = f".layer{1 + stage - first[wrapper][0]}.{block - first[wrapper][1]}"
            new = wrapper + say(places[name][0].removeprefix(wrapper), ours) + new[places[name].end() :]
        new = new.removeprefix(".")
        if new in names:
            raise FileError(f"{path}: holds {names[new]!r} and {name!r}, which mean the same")
        names[new] = name
    return names, renamed


def _expand(ours: str, match: re.Match) -> str:
    return match.expand(ours)


def _head(prefix: str, arrays: dict) -> str | None:
    """The name of the last product: fc, or else that of the network's only matrix, or of the only one beside it."""
    matrices = [k for k, v in arrays.items() if k.endswith(".weight") and v.ndim == 2 and not _BESIDE.fullmatch(k)]
    inside = [k for k in matrices if k.startswith(prefix)]
    chosen = [f"{prefix}fc.weight"] if f"{prefix}fc.weight" in inside else inside or matrices
    return chosen[0].removesuffix("weight") if len(chosen) == 1 else None


def _is_beside(name: str, prefix: str, head: str | None, value) -> bool:
    """Whether an array is no part of the network: not under the prefix that all of it has, or one that training keeps."""
    rest = name.removeprefix(prefix)
    outside = not name.startswith(prefix) and head is not None and head.startswith(prefix)
    return outside or bool(_BESIDE.fullmatch(rest)) or ("." not in rest and value.ndim == 0)


def _listed(names: list) -> str:
    """What was left out: each name once, many that begin alike as one."""
    short = dict.fromkeys(k.rsplit(".", 1)[-1] if k.endswith(COUNTERS) else k for k in map(str, names))
    alike = Counter(k.split(".")[0] for k in short)
    texts = dict.fromkeys(k if alike[k.split(".")[0]] == 1 else f"{k.split('.')[0]}.*" for k in short)
    return ", ".join([*texts][:10]) + (f" and {len(texts) - 10} more" if len(texts) > 10 else "")


def _pad_shortcuts(state: dict, zeros_behind: bool) -> tuple[dict, list[str]]:
    """(state, what is said): shortcuts of zero channels (He et al. 2016, option A) as ours have them, half before, half behind.

    A 1x1 convolution may stand for one: its weights are zeros and ones, its batch norm is 1 and 0, and AdaBS would recalibrate
    what must pass unchanged. Where the zeros lie elsewhere, the channels between blocks are put in another order.
    """
    names = [name.removesuffix(".0.weight") for name in state if name.endswith("downsample.0.weight")]
    stand_ins = [name for name in names if _passes_channels_on(state, name)]
    if stand_ins != names:
        said = [f"{name}.0 only passes channels on, but AdaBS will recalibrate the batch norm behind it" for name in stand_ins]
        return state, said[:1]
    if not (names or zeros_behind):
        return state, []
    placed = {name.removesuffix(".downsample"): state[f"{name}.0.weight"][..., 0, 0].argmax(0) for name in names}  # of [O, C]
    of_shortcuts = {f"{name}.{k}" for name in names for k in ("0.weight", *(f"1.{k}" for k in BATCH_NORM))}
    state = {name: value for name, value in state.items() if name not in of_shortcuts}
    said = ["took shortcuts of zeros and ones for what they stand for, channels of zeros without weights"] if names else []
    net, reordered = ResNet.of_state(state), dict(state)
    net.check_state(state)
    order, moved = np.arange(net.widths[0]), False  # of the channels between blocks: theirs, as ours come
    for block, c_in, c_out, strides in net._blocks():
        reordered[f"{block}.conv1.weight"] = state[f"{block}.conv1.weight"][:, order]
        if c_in != c_out or block in placed:
            passed = placed.get(block, np.arange(c_in))[order]
            zeros = np.setdiff1d(np.arange(c_out), passed)
            order = np.concatenate([zeros[: (c_out - c_in) // 2], passed, zeros[(c_out - c_in) // 2 :]])
            moved |= (order != np.arange(c_out)).any()
        last = len(strides)
        for name in (f"{block}.conv{last}.weight", *(f"{block}.bn{last}.{k}" for k in BATCH_NORM)):
            reordered[name] = reordered[name][order]
    reordered["fc.weight"] = state["fc.weight"][:, order]
    return reordered, said + ["put the channels between blocks in another order, for zeros half before and half behind"] * bool(
        moved
    )


def _passes_channels_on(state: dict, shortcut: str) -> bool:
    """Whether a shortcut's convolution gives every input channel to one output channel, and its batch norm changes nothing."""
    w = state[f"{shortcut}.0.weight"]
    selects = w.shape[2:] == (1, 1) and np.isin(w, (0, 1)).all() and (w.sum(0) == 1).all() and (w.sum(1) <= 1).all()
    return selects and all(np.allclose(state.get(f"{shortcut}.1.{k}", np.nan), v, 0, 1e-4) for k, v in BATCH_NORM.items())
