"""Make fashionmnist-evaluation.h5 from the four IDX files of Fashion-MNIST.

    python reference_weights/make_evaluation.py FOLDER

Holds all 10,000 test images with labels, and the first 2,000 training images for calibration (no labels needed).
"""

import sys
from pathlib import Path

from pcmref.files.datasets import load_fashion_mnist
from pcmref.files.images import save_images

HERE = Path(__file__).parent
SOURCE = "Fashion-MNIST: Xiao, Rasul & Vollgraf, arXiv:1708.07747 (2017); test set, and training images 0 to 1,999"


def main() -> None:
    data = load_fashion_mnist(sys.argv[1])
    path = HERE / "fashionmnist-evaluation.h5"
    calibration = data.train_images[:2000]
    licence = (HERE / "LICENSE-fashion-mnist.txt").read_text(encoding="utf-8")
    about = {"source": SOURCE, "licence": licence, "classes": list(data.classes)}
    save_images(path, "fashionmnist-evaluation", data.test_images, data.test_labels, calibration, data.mean, data.std, about)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
