"""The network's operations as loops over their definitions, for the slow twin.

Arrays hold `Bounded` numbers; activations [N, H, W, C], convolution weights [O, C, kH, kW]. Sums are written out term by
term, so that the bound covers every way to add them up. A factor that multiplies a sum is multiplied into its terms
first: the bound then covers both forms.
"""

import numpy as np

from pcmref.golden.twin import constant, dot, each, exact, flat, grid, largest, mean, total


def _u(values: np.ndarray) -> float:
    return values.flat[0].u


def _taps(x_shape, w_shape, stride, padding):
    """(n, p, q, o, r, s, c, i, j) of every product in a convolution: y[n,p,q,o] gets x[n,r,s,c] * w[o,c,i,j]."""
    (n, h, width, c), (o, _, k_h, k_w) = x_shape, w_shape
    h_out, w_out = (h + 2 * padding - k_h) // stride + 1, (width + 2 * padding - k_w) // stride + 1
    for m, p, q, f, i, j, d in np.ndindex(n, h_out, w_out, o, k_h, k_w, c):
        r, s = p * stride + i - padding, q * stride + j - padding
        if 0 <= r < h and 0 <= s < width:
            yield m, p, q, f, r, s, d, i, j


def conv2d(x, w, stride, padding):
    """y[n,p,q,o] = sum_{i,j,c} x[n, p*stride+i-padding, q*stride+j-padding, c] * w[o,c,i,j]."""
    (n, h, width, _), (o, _, k_h, k_w) = x.shape, w.shape
    shape = (n, (h + 2 * padding - k_h) // stride + 1, (width + 2 * padding - k_w) // stride + 1, o)
    pairs = grid(shape, lambda *_: [])
    for m, p, q, f, r, s, d, i, j in _taps(x.shape, w.shape, stride, padding):
        pairs[m, p, q, f].append((x[m, r, s, d], w[f, d, i, j]))
    return grid(shape, lambda *index: dot(pairs[index], _u(x)))


def conv2d_backward(dy, x, w, stride, padding):
    """(dx, dw): each product of the forward sum hands dy times the other factor to each of its factors."""
    for_x, for_w = grid(x.shape, lambda *_: []), grid(w.shape, lambda *_: [])
    for m, p, q, f, r, s, d, i, j in _taps(x.shape, w.shape, stride, padding):
        for_x[m, r, s, d].append((dy[m, p, q, f], w[f, d, i, j]))
        for_w[f, d, i, j].append((dy[m, p, q, f], x[m, r, s, d]))
    u = _u(x)
    return grid(x.shape, lambda *index: dot(for_x[index], u)), grid(w.shape, lambda *index: dot(for_w[index], u))


def inverse_std(var, eps):
    """1 / sqrt(var + eps) of each channel."""
    return each(lambda v: (v + constant(eps, v.u)).sqrt().reciprocal(), var)


def batch_norm(x, weight, bias, mean_, var, eps):
    """y = weight * (x - mean) / sqrt(var + eps) + bias (Ioffe & Szegedy 2015, algorithm 2), terms multiplied out."""
    scale = each(lambda a, b: a * b, weight, inverse_std(var, eps))

    def entry(n, h, w, c):
        return total([x[n, h, w, c] * scale[c], -(mean_[c] * scale[c]), bias[c]])

    return grid(x.shape, entry)


def _channel(x, c):
    return flat(x[..., c])


def batch_norm_backward(dy, x, weight, mean_, var, eps):
    """(dx, dweight, dbias) with given statistics; x_hat multiplied out as x/std - mean/std."""
    inv, channels = inverse_std(var, eps), (x.shape[3],)
    dx = grid(x.shape, lambda n, h, w, c: dy[n, h, w, c] * (weight[c] * inv[c]))

    def dweight(c):
        pairs = zip(_channel(dy, c), _channel(x, c), strict=True)
        return total([term for d, v in pairs for term in (d * (v * inv[c]), -(d * (mean_[c] * inv[c])))])

    return dx, grid(channels, dweight), grid(channels, lambda c: total(_channel(dy, c)))


def moments(x):
    """(mean, sum of squared deviations) of each channel, two passes."""
    means = grid((x.shape[3],), lambda c: mean(_channel(x, c)))

    def squares(c):
        deviations = [v - means[c] for v in _channel(x, c)]
        return dot([(d, d) for d in deviations], _u(x))

    return means, grid(means.shape, squares)


def batch_variance(x):
    """(mean, biased variance) of each channel: what training normalises with."""
    means, m2 = moments(x)
    n = exact(x.size // x.shape[3], _u(x))
    return means, each(lambda v: v / n, m2)


def batch_norm_train(x, weight, bias, eps):
    """y with the batch's own statistics (Ioffe & Szegedy 2015, algorithm 1)."""
    return batch_norm(x, weight, bias, *batch_variance(x), eps)


def running_statistics(x, running_mean, running_var, momentum):
    """(running_mean, running_var) after the batch: (1 - m) * old + m * new, the new variance over N - 1."""
    means, m2 = moments(x)
    n = exact(x.size // x.shape[3] - 1, _u(x))

    def blend(old, new):
        m = constant(momentum, old.u)
        return (exact(1, old.u) - m) * old + m * new

    return each(blend, running_mean, means), each(lambda old, v: blend(old, v / n), running_var, m2)


def batch_norm_train_backward(dy, x, weight, eps):
    """(dx, dweight, dbias): dx = weight/std * (dy - mean(dy) - x_hat * mean(dy * x_hat)) (the same source, section 3)."""
    means, var = batch_variance(x)
    inv = inverse_std(var, eps)
    x_hat = grid(x.shape, lambda n, h, w, c: (x[n, h, w, c] - means[c]) * inv[c])
    channels, count = (x.shape[3],), exact(x.size // x.shape[3], _u(x))
    dbias = grid(channels, lambda c: total(_channel(dy, c)))
    dweight = grid(channels, lambda c: dot(list(zip(_channel(dy, c), _channel(x_hat, c), strict=True)), _u(x)))
    factor = each(lambda a, b: a * b, weight, inv)

    def entry(n, h, w, c):
        terms = [dy[n, h, w, c], -(dbias[c] / count), -(x_hat[n, h, w, c] * (dweight[c] / count))]
        return total([t * factor[c] for t in terms])

    return grid(x.shape, entry), dweight, dbias


def relu(x):
    """y = max(x, 0)."""
    return each(lambda v: largest(v, exact(0, v.u)), x)


def relu_backward(dy, x):
    """dx = dy where x > 0, else 0."""
    return each(lambda d, v: d if v.above(exact(0, v.u)) else exact(0, v.u), dy, x)


def linear(x, w, b):
    """y[n,o] = sum_c x[n,c] w[o,c] + b[o]."""
    return grid(
        (x.shape[0], w.shape[0]),
        lambda n, o: total([*(x[n, c] * w[o, c] for c in range(x.shape[1])), b[o]]),
    )


def linear_backward(dy, x, w):
    """(dx, dw, db)."""
    u, (batch, outputs) = _u(x), dy.shape
    dx = grid(x.shape, lambda n, c: dot([(dy[n, o], w[o, c]) for o in range(outputs)], u))
    dw = grid(w.shape, lambda o, c: dot([(dy[n, o], x[n, c]) for n in range(batch)], u))
    return dx, dw, grid((outputs,), lambda o: total([dy[n, o] for n in range(batch)]))


def global_avg_pool(x):
    """y[n,c] = mean over height and width."""
    return grid((x.shape[0], x.shape[3]), lambda n, c: mean(flat(x[n, :, :, c])))


def global_avg_pool_backward(dy, x_shape):
    """dx: each of the H*W pixels gets dy/(H*W)."""
    count = exact(x_shape[1] * x_shape[2], _u(dy))
    return grid(x_shape, lambda n, h, w, c: dy[n, c] / count)


def _windows(x_shape, kernel, stride, padding):
    """((n, p, q, c), [(n, r, s, c), ...]) of each pooling window, in row-major order, without the border."""
    n, h, w, c = x_shape
    h_out, w_out = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    for m, p, q, d in np.ndindex(n, h_out, w_out, c):
        corners = ((p * stride + i - padding, q * stride + j - padding) for i, j in np.ndindex(kernel, kernel))
        yield (m, p, q, d), [(m, r, s, d) for r, s in corners if 0 <= r < h and 0 <= s < w]


def _winner(x, window):
    """The index of a window's first largest value."""
    best = window[0]
    for index in window[1:]:
        if x[index].above(x[best]):
            best = index
    return best


def max_pool2d(x, kernel, stride, padding):
    """The largest value under each window."""
    found = {out: x[_winner(x, window)] for out, window in _windows(x.shape, kernel, stride, padding)}
    shape = tuple(1 + max(index[axis] for index in found) for axis in range(4))
    return grid(shape, lambda *index: found[index])


def max_pool2d_backward(dy, x, kernel, stride, padding):
    """dx: each window's dy goes to its first largest value."""
    received = grid(x.shape, lambda *_: [])
    for out, window in _windows(x.shape, kernel, stride, padding):
        received[_winner(x, window)].append(dy[out])
    return grid(x.shape, lambda *index: total(received[index]) if received[index] else exact(0, _u(dy)))


def _log_softmax(row):
    """ln of the softmax of a row, its largest entry subtracted first."""
    top = max(row, key=lambda z: z.value)
    shifted = [z - top for z in row]
    norm = total([z.exp() for z in shifted]).log()
    return [z - norm for z in shifted]


def _target(label, k, classes, smoothing, u):
    """(1 - smoothing) on the label, smoothing spread over all classes."""
    spread = constant(smoothing, u) / exact(classes, u)
    return spread + (exact(1, u) - constant(smoothing, u)) if k == label else spread


def softmax_cross_entropy(logits, labels, smoothing):
    """loss = mean_n of -sum_k t[n,k] ln softmax(logits)[n,k]."""
    (batch, classes), u, terms = logits.shape, _u(logits), []
    for n in range(batch):
        log_p = _log_softmax(list(logits[n]))
        terms += [-(_target(labels[n], k, classes, smoothing, u) * log_p[k]) for k in range(classes)]
    return grid((), lambda: total(terms) / exact(batch, u))


def softmax_cross_entropy_backward(logits, labels, smoothing):
    """dlogits = (softmax(logits) - t) / N."""
    (batch, classes), u = logits.shape, _u(logits)

    def probabilities(row):
        top = max(row, key=lambda z: z.value)
        e = [(z - top).exp() for z in row]
        norm = total(e).reciprocal()
        return [v * norm for v in e]

    rows = [probabilities(list(logits[n])) for n in range(batch)]

    def entry(n, k):
        return (rows[n][k] - _target(labels[n], k, classes, smoothing, u)) / exact(batch, u)

    return grid(logits.shape, entry)
