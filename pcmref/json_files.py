"""JSON files of others, checked before they are believed: size and nesting before parsing, then a schema.

`check` knows the part of JSON Schema (2020-12) that the project's schemas use; a test holds it to that.
"""

import json
import re
import reprlib

from pcmref.errors import FileError

MAX_BYTES = 64 << 20  # of one file
MAX_DEPTH, MAX_CONTAINERS = 16, 200_000  # objects and lists: parsed, an empty one takes 30 times its bytes
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def read(path, schema: dict, max_bytes: int = MAX_BYTES):
    """The content of a JSON file that fits a schema; FileError, naming file and field, where there is none."""
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ValueError(f"over {max_bytes} bytes")
        _check_nesting(content)
        value = json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: cannot be read as JSON: {error}") from error
    check(value, schema, schema, f"{path}: ")
    return value


def _check_nesting(content: bytes) -> None:
    """ValueError where lists and objects are nested too deep or too many; what is no JSON the parser finds."""
    depth = containers = 0
    for token in _TOKENS.finditer(content):
        first = content[token.start()]
        if first in b"[{":
            depth, containers = depth + 1, containers + 1
            if depth > MAX_DEPTH or containers > MAX_CONTAINERS:
                raise ValueError(f"more than {MAX_DEPTH} levels or {MAX_CONTAINERS} lists and objects")
        elif first in b"]}":
            depth -= 1


def _object(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _refuse(name: str):
    raise ValueError(f"{name} is no JSON; such a number is written as text, 'nan', 'inf' or '-inf'")


def check(value, schema: dict, root: dict, where: str) -> None:
    """FileError where a value does not fit a schema; `where` names the file and the way to the value."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(isinstance(value, _TYPES[t]) and (t == "boolean" or not isinstance(value, bool)) for t in types):
        raise FileError(f"{where}must be of type {' or '.join(types)}, got {reprlib.repr(value)}")
    if "const" in schema and value != schema["const"]:
        raise FileError(f"{where}must be {schema['const']!r}, got {reprlib.repr(value)}")
    if "enum" in schema and value not in schema["enum"]:
        raise FileError(f"{where}must be one of {schema['enum']}, got {reprlib.repr(value)}")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        raise FileError(f"{where}must be written as {schema['pattern']}, got {reprlib.repr(value)}")
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        raise FileError(f"{where}must be from {schema.get('minimum')} to {schema.get('maximum')}, got {reprlib.repr(value)}")
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name in schema.get("required", ()):
            if name not in value:
                raise FileError(f"{where}{name!r} is missing")
        for name, entry in value.items():
            if name not in known and others is False:
                raise FileError(f"{where}{reprlib.repr(name)} is not known there; known are {sorted(known)}")
            check(entry, known.get(name, others), root, f"{where}{reprlib.repr(name)}: ")
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            raise FileError(f"{where}has {len(value)} entries, at most {schema['maxItems']} are read")
        if "items" in schema:
            for i, entry in enumerate(value):
                check(entry, schema["items"], root, f"{where}entry {i}: ")
