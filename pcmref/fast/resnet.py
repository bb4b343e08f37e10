"""The network on the fast layers: nn's topology with faster layers, over chunks of images.

Evaluation carries small chunks of images through the whole network, batch norm folded into the convolutions before; training
goes layer by layer, each layer over the chunks of the batch, because batch norm needs the statistics of all of them in between.
"""

from functools import partial

import numpy as np

from pcmref.errors import SettingError
from pcmref.fast.gather import Recycled
from pcmref.fast.layers import CHUNK, Layers, folded, folded_layer
from pcmref.nn import resnet as plain
from pcmref.nn.blocks import layer
from pcmref.nn.functional import matrix_product
from pcmref.nn.states import check_values, checked_images, checked_state
from pcmref.threads import chunks_of, map_chunks, single_threaded_blas

ENGINES = ("fast", "plain")


class ResNet(plain.ResNet):
    __doc__ = plain.ResNet.__doc__

    def forward(self, state, x, train=False, workers=None, engine="fast", product=matrix_product):
        """Logits of a batch, as nn's; `engine` "plain" runs nn's text itself, `workers` are threads (None: one a core).

        The result is the same to the bit for any number of workers. A product of the caller's own runs nn's text too, and so
        does float16, in which batch norm's sums do not fit.

        >>> net = pcmref.ResNet.resnet8(in_channels=1)
        >>> state, x = net.init(), pcmref.draws.standard_normal(0, "images", (2, 28, 28, 1)).astype(np.float32)
        >>> fast, text = net.forward(state, x), net.forward(state, x, engine="plain")
        >>> bool(np.abs(fast - text).max() < 1e-5)
        True
        """
        if engine not in ENGINES:
            raise SettingError(f"engine must be one of {ENGINES}, got {engine!r}")
        x, own_product = checked_images(self, x), product is not matrix_product
        of_text = own_product or x.dtype == np.float16
        if engine == "plain" or x.dtype.kind == "O" or (train and of_text):
            return super().forward(state, x, train, product)
        state = checked_state(self, state, x.dtype, arrays_only=not own_product)
        if train:
            return self._train(state, x, workers)
        check_values(state)
        if of_text:
            a_layer = partial(partial, layer, eps=self.eps, product=product)
        else:
            a_layer, state = folded_layer, folded(state, [(conv, bn) for conv, bn, _ in self.conv_bn_pairs()], self.eps)

        def evaluate(chunk):
            return self._run(state, x[chunk], a_layer(), product)[0]

        return np.concatenate(map_chunks(evaluate, chunks_of(len(x), CHUNK), workers))

    def _train(self, state, x, workers, keep=True):
        layers = Layers(len(x), workers, keep, Recycled.of_pass((self, x.shape, x.dtype)))
        with single_threaded_blas():
            logits, tape = self._run(state, x, partial(layers.layer, eps=self.eps))
        return logits, tape | {"layers": layers}

    def backward(self, state, tape, dlogits):
        """Gradients as nn's, by the engine that made the tape.

        >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
        >>> state, x = net.init(dtype=np.float64), pcmref.draws.standard_normal(0, "images", (2, 6, 6, 1))
        >>> logits, tape = net.forward(state, x, train=True)
        >>> net.backward(state, tape, np.ones_like(logits))["fc.bias"].tolist()
        [2.0, 2.0, 2.0]
        """
        if "layers" not in tape:
            return super().backward(state, tape, dlogits)
        with single_threaded_blas():
            return self._backward(tape, dlogits, partial(tape["layers"].layer_backward, eps=self.eps))

    def statistics(self, state, x, workers=None, engine="fast", product=matrix_product):
        """As nn's; nothing is kept for a backward pass: memory is that of the largest layers."""
        x = checked_images(self, x)
        if engine != "fast" or x.dtype.kind == "O" or x.dtype == np.float16 or product is not matrix_product:
            return super().statistics(state, x, engine=engine, product=product)
        return self._statistics(self._train(checked_state(self, state, x.dtype), x, workers, keep=False)[1])
