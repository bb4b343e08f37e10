"""What converters, tile sizes, fresh readings and the read-out of drift compensation cost in accuracy: converters.md.

python validation/experiments/converters.py [NETWORK] [--chips 3] [--images 400]

Every row computes the reference network on crossbars a day after programming, with global drift compensation read out
through the row's own converters; chips, draws and images are the same in all rows, so differences are taken chip by chip.
Accuracies are kept in results/converters.json; a run goes on from there. Another network is measured anew.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from measurements import Kept, cell, from_command

from pcmref import Chip, PCMModel, tables
from pcmref.pcm.crossbar import ADC_LIMIT, Converter, Periphery, multiply
from pcmref.training import accuracy

PATH = Path(__file__).parents[1] / "converters.md"
DAY_S = 86_400.0
JOSHI = PCMModel.joshi2020()


def periphery(bits: int | None, rows: int = 256, dac: bool = True, adc: bool = True, fresh: bool = False) -> Periphery:
    """Square tiles, and converters of so many bits where there are any."""
    into = Converter.of_bits(bits) if bits and dac else None
    out = Converter.of_bits(bits, ADC_LIMIT) if bits and adc else None
    return Periphery((rows, rows), into, out, fresh)


ROWS = {
    "ideal converters": (JOSHI, periphery(None)),
    "DAC and ADC of 10 bits": (JOSHI, periphery(10)),
    "DAC and ADC of 8 bits": (JOSHI, periphery(8)),
    "DAC and ADC of 6 bits": (JOSHI, periphery(6)),
    "DAC of 6 bits, ideal ADC": (JOSHI, periphery(6, adc=False)),
    "ADC of 6 bits, ideal DAC": (JOSHI, periphery(6, dac=False)),
    "8 bits, tiles of 512x512": (JOSHI, periphery(8, 512)),
    "8 bits, tiles of 128x128": (JOSHI, periphery(8, 128)),
    "8 bits, tiles of 64x64": (JOSHI, periphery(8, 64)),
    "ideal converters, a fresh reading for every product": (JOSHI, periphery(None, fresh=True)),
    "the same, but products 1 us apart share the slow part": (JOSHI, Periphery(fresh=True, products_apart_s=1e-6)),
    "ideal converters, GDC per column": (replace(JOSHI, gdc_read_out="per column"), periphery(None)),
}


def measure(kept: Kept, model: PCMModel, around: Periphery, seed: int) -> float:
    """The accuracy of one chip."""
    x, labels, _ = kept.evaluation
    state = Chip.program(kept.file.state, model, seed).at(DAY_S, periphery=around).compensated().state()
    return accuracy(kept.file.net, state, x, labels, product=multiply)


def main() -> int:
    kept, n_chips = from_command("converters", __doc__.splitlines()[0], __file__, chips=3, images=300)
    found = kept.measure({text: partial(measure, kept, *row) for text, row in ROWS.items()}, n_chips)
    base = found["ideal converters"]
    lines = [[text, cell(values, None if values is base else base)] for text, values in found.items()]
    table = tables.markdown([["on crossbars", "accuracy"], *lines])
    tables.fill(PATH, {"accuracies": f"{kept.heading(n_chips)}\n\n{table}"})
    print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
