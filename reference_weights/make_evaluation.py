"""Make fashionmnist-evaluation.h5 from the four IDX files of Fashion-MNIST.

    python reference_weights/make_evaluation.py FOLDER

Holds all 10,000 test images with labels, and the first 2,000 training images for calibration (no labels needed).
"""

import sys
from pathlib import Path

from pcmref.data import load_fashion_mnist
from pcmref.library import save_images

ABOUT = {
    "source": "Fashion-MNIST: Xiao, Rasul & Vollgraf, arXiv:1708.07747 (2017); test set, and training images 0 to 1,999",
    "licence": "The MIT License (MIT). Copyright (c) 2017 Zalando SE, https://tech.zalando.com. Permission is hereby granted, "
    "free of charge, to any person obtaining a copy of this software and associated documentation files, to deal in the "
    "software without restriction, subject to this notice being included in all copies or substantial portions; the "
    "software is provided as is, without warranty of any kind. The full text is in reference_weights/README.md.",
}


def main() -> None:
    data = load_fashion_mnist(sys.argv[1])
    path = Path(__file__).parent / "fashionmnist-evaluation.h5"
    calibration = data.train_images[:2000]
    about = ABOUT | {"classes": list(data.classes)}
    save_images(path, "fashionmnist-evaluation", data.test_images, data.test_labels, calibration, data.mean, data.std, about)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
