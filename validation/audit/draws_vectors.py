"""Write draws.json, the test vectors of pcmref's random numbers.

python -m validation.audit.draws_vectors
"""

import json
from pathlib import Path

from pcmref import draws

STREAMS = (
    (0, "init/conv1.weight"),
    (0, "program/layer1.0.conv1.weight"),
    (7, "read/0/86400.0/fc.bias"),
    (-1, "shuffle/3"),
    (2**40, "é"),
)


def main() -> None:
    streams = []
    for seed, name in STREAMS:
        raw, u, z = draws.raw(seed, name, 10), draws.uniform(seed, name, 10), draws.standard_normal(seed, name, 10)
        as_text = {"raw": [f"{w:016x}" for w in raw], "u": [float(v).hex() for v in u], "z": [float(v).hex() for v in z]}
        streams.append({"seed": seed, "name": name} | as_text)
    path = Path(__file__).parents[1] / "results" / "draws.json"
    path.write_text(json.dumps({"raw": "hexadecimal", "u, z": "C99 hexadecimal floats", "streams": streams}, indent=1) + "\n")


if __name__ == "__main__":
    main()
