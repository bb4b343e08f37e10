"""Converters and tiles for the slow twin: a DAC or ADC as its definition has it, a matrix product tile by tile.

Where a value lies so near the middle of two codes that float32 cannot decide, either code is right. A value exactly in the
middle, when every step to it is exact, obeys the converter's rule for ties.
"""

from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from pcmref.golden.twin import Bounded, TooCoarse, constant, exact, grid, is_narrow, largest, magnitude, smallest, total

_FLOAT32 = 2.0**-24


def _tidy(result: Bounded, *operands: Bounded) -> Bounded:
    """The result without error where the operands have none and every dtype holds it."""
    if not any(v.error for v in operands) and is_narrow(float(result.value)) and Decimal(float(result.value)) == result.value:
        return exact(result.value, result.u)
    return result


def convert(x: Bounded, converter: dict) -> tuple[Bounded, Bounded | None]:
    """(q, the other right value or None): q = origin + step round((x - origin)/step), x or q clipped to -limit..limit."""
    u, limit = x.u, constant(converter["limit"], x.u)
    limit = _tidy(limit) if is_narrow(converter["limit"]) else limit
    step = _tidy((limit + limit) / exact(converter["steps"], u), limit)
    origin = exact(0, u) if converter["origin"] == "zero" else -limit

    def clip(v):
        return smallest(largest(v, -limit), limit)

    first = converter["order"] == "clip first"
    v = clip(x) if first else x
    distance = _tidy(v - origin, v, origin) if origin.value else v
    codes = _tidy(distance / step, distance, step)
    found = []
    for code in _codes(codes, converter["rounding"]):
        scaled = _tidy(step * exact(code, u), step)
        q = _tidy(origin + scaled, origin, scaled) if origin.value else scaled
        found.append(q if first else clip(q))
    return found[0], found[1] if len(found) > 1 else None


def _codes(codes: Bounded, rounding: str) -> list[Decimal]:
    """The nearest whole number, and the other one where it is undecided."""
    rule = ROUND_HALF_EVEN if rounding == "half-even" else ROUND_HALF_UP  # HALF_UP is away from zero
    nearest = codes.value.to_integral_value(rule)
    offset = codes.value - nearest
    to_middle = float(Decimal("0.5") - abs(offset))
    if not codes.error or to_middle > codes.error * codes.u:
        return [nearest]
    if codes.u > _FLOAT32:
        raise TooCoarse
    return [nearest, nearest + (1 if offset > 0 else -1)]


def decided(x: Bounded, converter: dict | None) -> Bounded:
    """The converted value (x itself without a converter); TooCoarse where two codes are right."""
    if converter is None:
        return x
    q, other = convert(x, converter)
    if other is not None:
        raise TooCoarse
    return q


def multiply(x, g_us, p):
    """y[n,o] = alpha max|x| sum over tiles of ADC(sum_k DAC(x/max|x|) (G+ - G-) / G_max) G_max/scale."""
    (batch, rows), columns = x.shape, g_us.shape[2]
    height = p["tile"][0]
    u, g_max = x.flat[0].u, constant(p["g_max_us"], x.flat[0].u)
    alphas = p["alpha"] if isinstance(p["alpha"], list) else [p["alpha"]] * columns

    def entry(n, o):
        top = exact(0, u)
        for k in range(rows):
            top = largest(top, magnitude(x[n, k]))
        top = top if top.value else exact(1, u)
        parts = []
        for first in range(0, rows, height):
            inside = range(first, min(first + height, rows))
            terms = [decided(x[n, k] / top, p["dac"]) * v for k in inside for v in (g_us[0, k, o], -g_us[1, k, o])]
            parts.append(decided(total(terms) / g_max, p["adc"]) * (g_max / constant(p["scale"], u)))
        return total(parts) * top * constant(alphas[o], u)

    return grid((batch, columns), entry)
