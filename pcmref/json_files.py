"""JSON files of others: size and nesting are checked before they are parsed."""

import json
import re
from collections import Counter

from pcmref.errors import FileError

MAX_BYTES, MAX_VALUES, MAX_DEPTH = 32 << 20, 2_000_000, 16  # of one file; parsed, a short value takes 30 times its bytes
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[][{}]', re.DOTALL)  # a text without an end: all of the rest


def read(path, max_bytes: int = MAX_BYTES):
    """The content of a JSON file; FileError where it is none, or large, or an object names something twice."""
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes or content.count(b",") >= MAX_VALUES:
            raise ValueError(f"over {max_bytes} bytes or {MAX_VALUES} values")
        depth = 0
        for token in _TOKENS.finditer(content):
            depth += (token.group() in (b"[", b"{")) - (token.group() in (b"]", b"}"))
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        return json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: cannot be read as JSON: {error}") from error


def _object(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"{Counter(name for name, _ in pairs).most_common(1)[0][0]!r} is there twice")
    return found


def _refuse(name: str):
    raise ValueError(f"{name} is no JSON; such a number is written as text, 'nan', 'inf' or '-inf'")
