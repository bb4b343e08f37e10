"""A progress bar on stderr: tqdm's where it is installed, else a line now and then."""

import sys


class ProgressBar:
    """Shows `done` of `total`; use as a context manager and call `update(done, total)`."""

    def __init__(self, label: str, unit: str):
        self.label, self.unit, self.bar, self.printed = label, unit, None, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def update(self, done: int, total: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            if done == total or done >= self.printed + total / 10:
                self.printed = done
                print(f"{self.label}: {done} of {total} {self.unit}s", file=sys.stderr, flush=True)
            return
        if self.bar is None:
            self.bar = tqdm(initial=done, total=total, desc=self.label, unit=f" {self.unit}s", file=sys.stderr)
        self.bar.update(done - self.bar.n)
