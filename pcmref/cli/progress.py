"""A progress bar on stderr: tqdm's where it is installed, else a line now and then."""

import sys
import time

from pcmref.experiments.times import human_time

LINE_SECONDS = 30


class ProgressBar:
    """Shows `done` of `total`, their rate and the time left; use as a context manager and call `update(done, total)`."""

    def __init__(self, label: str, unit: str):
        self.label, self.unit, self.bar = label, unit, None
        self.first = self.printed = None  # (done, when) of the first update and of the last line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = self.first = None  # another count may follow

    def update(self, done: int, total: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self._line(done, total)
            return
        if self.bar is None:
            self.bar = tqdm(initial=done, total=total, desc=self.label, unit=f" {self.unit}s", file=sys.stderr)
        self.bar.update(done - self.bar.n)

    def _line(self, done: int, total: int) -> None:
        """A line at the start and the end, after every tenth, and every LINE_SECONDS."""
        now = time.monotonic()
        if self.first is None:
            self.first = self.printed = (done, now)
        elif done < min(total, self.printed[0] + total / 10) and now < self.printed[1] + LINE_SECONDS:
            return
        self.printed = done, now
        text = f"{self.label}: {done:,} of {total:,} {self.unit}s"
        if done > self.first[0]:
            rate = (done - self.first[0]) / max(now - self.first[1], 1e-9)
            left_s = (total - done) / rate
            step_s = 1 if left_s < 120 else 60 if left_s < 7200 else 360
            text += f", {rate:,.{0 if rate >= 10 else 2}f} {self.unit}s/s, {human_time(step_s * round(left_s / step_s))} left"
        print(text, file=sys.stderr, flush=True)
