"""What converters, tile sizes and fresh readings cost in accuracy: converters.md.

python -m validation.experiments.converters [NETWORK] [--chips 10] [--images 500]

Every row computes the reference network on crossbars a day after programming, with global drift compensation read out
through the row's own converters; chips, draws and images are the same in all rows, so differences are taken chip by chip.
Accuracies are kept in results/converters.json; a run goes on from there. With other code, images or another network everything
is measured anew.
"""

from pathlib import Path

from pcmref.experiments import tables
from pcmref.experiments.driver import Condition
from pcmref.pcm.crossbar import ADC_LIMIT, Converter, Periphery
from pcmref.pcm.model import PCMModel
from validation.experiments.measurements import from_command
from validation.experiments.paired import READ_SO, accuracy_cells, difference_cells, heading

PATH = Path(__file__).parents[1] / "converters.md"
JOSHI = PCMModel.joshi2020()


def periphery(bits: int | None, rows: int = 256, dac: bool = True, adc: bool = True, fresh: bool = False) -> Periphery:
    """Square tiles, and converters of so many bits where there are any."""
    into = Converter.of_bits(bits) if bits and dac else None
    out = Converter.of_bits(bits, ADC_LIMIT) if bits and adc else None
    return Periphery((rows, rows), into, out, fresh)


ROWS = {
    "ideal converters": periphery(None),
    "DAC and ADC of 10 bits": periphery(10),
    "DAC and ADC of 8 bits": periphery(8),
    "DAC and ADC of 6 bits": periphery(6),
    "DAC of 6 bits, ideal ADC": periphery(6, adc=False),
    "ADC of 6 bits, ideal DAC": periphery(6, dac=False),
    "8 bits, tiles of 512x512": periphery(8, 512),
    "8 bits, tiles of 128x128": periphery(8, 128),
    "8 bits, tiles of 64x64": periphery(8, 64),
    "ideal converters, a fresh reading for every product": periphery(None, fresh=True),
    "the same, but products 1 us apart share the slow part": Periphery(fresh=True, products_apart_s=1e-6),
}


def main() -> int:
    kept, n_chips = from_command("converters", __doc__.splitlines()[0], __file__, chips=10, images=500)
    found = kept.measure({text: Condition(JOSHI, gdc=True, periphery=row) for text, row in ROWS.items()}, n_chips)
    base = found["ideal converters"]
    lines = [[text, *(accuracy_cells(base) if v is base else difference_cells(v, base))] for text, v in found.items()]
    table = tables.markdown([["on crossbars", "mean", "over chips"], *lines])
    tables.fill(PATH, {"accuracies": f"{heading(kept, n_chips)} {READ_SO}\n\n{table}"})
    print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
