"""What a study of chips has measured so far, kept in a file from which another run goes on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import scipy

import pcmref
from pcmref import store
from pcmref.errors import FileError
from pcmref.tasks import Measured

KIND = "study-part"


def source_digest() -> str:
    """SHA-256 of the package's source: the version's number stays the same from commit to commit."""
    digest, top = hashlib.sha256(), Path(pcmref.__file__).parent
    for path in sorted(top.rglob("*.py")):
        digest.update(f"{path.relative_to(top).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def identity(arrays: dict[str, np.ndarray], settings: dict) -> dict:
    """What must be the same for two runs to be of one study: settings as plain values, digests of arrays and code, versions."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {np.asarray(array).dtype.str} {np.shape(array)}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    plain = json.loads(json.dumps(settings))
    versions = {"pcmref": pcmref.__version__, "numpy": np.__version__, "scipy": scipy.__version__}
    return {"arrays": digest.hexdigest(), "code": source_digest(), "versions": versions, "settings": plain}


class Kept:
    """The chips measured so far: `save` after each, `load` to go on, `remove` when the results are written."""

    def __init__(self, path: Path, identity: dict, n_values: int):
        """n_values: accuracies of each chip, in an order that follows from the settings in `identity`."""
        self.path, self.identity, self.n_values = path, identity, n_values

    def save(self, measured: Measured) -> None:
        """Write all chips measured so far, atomically."""
        chips = sorted(measured)
        accuracy = np.array([measured[k] for k in chips])
        store.write(self.path, KIND, {"identity": self.identity}, {"chip": np.array(chips), "accuracy": accuracy})

    def load(self) -> Measured:
        """The chips of the file, none where there is no file; FileError where it is of another study or holds no chips."""
        if not self.path.exists():
            return {}
        meta, arrays = store.read(self.path, KIND)
        if meta.get("identity") != self.identity:
            raise FileError(
                f"{self.path}: is of another study (network, images, settings, code or versions); "
                "move it away, or leave out --resume"
            )
        chips, accuracy = arrays.get("chip"), arrays.get("accuracy")
        fits = len(arrays) == 2 and chips is not None and accuracy is not None and chips.dtype.kind == "i" and chips.ndim == 1
        if not fits or accuracy.shape != (len(chips), self.n_values) or len(set(chips.tolist())) < len(chips):
            raise FileError(f"{self.path}: 'chip' and 'accuracy' do not hold the chips of a study")
        if not ((accuracy >= 0) & (accuracy <= 1)).all() or (chips < 0).any():
            raise FileError(f"{self.path}: 'accuracy' must lie in 0..1, 'chip' from 0")
        return dict(zip(chips.tolist(), accuracy.tolist(), strict=True))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
