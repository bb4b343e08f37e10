"""A ResNet's state in a file of others: found behind any prefix, its names read as torchvision's, its shortcuts as ours."""

import re
from collections import Counter
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np

from pcmref.errors import FileError
from pcmref.nn.resnet import ResNet
from pcmref.readers import NESTS, array_of, is_convolution, mappings, read

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
