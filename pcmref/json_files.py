"""JSON files of others, checked before they are believed: size and nesting before parsing, then a schema.

`check` knows the part of JSON Schema (2020-12) that the project's schemas use; a test holds it to that.
"""

import json
import re
import reprlib

from pcmref.errors import FileError

MAX_BYTES, MAX_VALUES, MAX_DEPTH = 32 << 20, 2_000_000, 16  # of one file; parsed, a short value takes 30 times its bytes
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[][{}]', re.DOTALL)  # a text without an end: all of the rest
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
    """ValueError where there are too many values, or they are nested too deep; what is no JSON the parser finds."""
    if content.count(b",") >= MAX_VALUES:
        raise ValueError(f"over {MAX_VALUES} values")
    depth = 0
    for token in _TOKENS.finditer(content):
        depth += (token.group() in (b"[", b"{")) - (token.group() in (b"]", b"}"))
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def _object(pairs: list) -> dict:
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
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
