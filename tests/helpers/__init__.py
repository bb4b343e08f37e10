"""What tests share, and where the project lies."""

from pathlib import Path

TOP = Path(__file__).parents[2]
