"""The package, with the trained networks and images of `reference_weights/` inside it once it is installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pcmref", "pcmref.*"]), "pcmref.reference_weights"],
    package_dir={"pcmref.reference_weights": "reference_weights"},
    package_data={
        "pcmref": ["py.typed"],
        "pcmref.cli": ["*.html"],
        "pcmref.experiments": ["*.mplstyle"],
        "pcmref.pcm": ["*.toml"],
        "pcmref.golden": ["*.h5", "*.json", "*.toml"],
        "pcmref.reference_weights": ["*.h5", "*.md", "*.txt"],
    },
)
