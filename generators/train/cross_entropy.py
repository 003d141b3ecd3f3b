"""Cross-entropy of the next token from hidden states, in chunks: the logits of a batch never exist at once.

With a vocabulary of 256 thousand words the logits of 400 targets are 400 MB, and the head is most of a small model's arithmetic. The
head is frozen, so the gradient of the hidden states is known as soon as the softmax is: dH = (softmax(H Wᵀ) - onehot) W, two matrix
products in all and nothing kept.
"""

from __future__ import annotations

from typing import Any

from generators import device
from generators.device import load_mlx

mx = load_mlx()

_CHUNK_BYTES = 128 * 1024 * 1024  # of float32 logits at a time


class Head:
    """The frozen output layer of a model. weight: (vocabulary, width). soft_cap: gemma2's final cap on logits, or None."""

    def __init__(self, model: Any):
        self.soft_cap: float | None = getattr(model, "final_logit_softcapping", None)
        layer = model.lm_head if "lm_head" in model else model.model.embed_tokens
        self.weight = _dense_weight(layer)
        self.chunk = max(16, _CHUNK_BYTES // (4 * self.weight.shape[0]))
        self._on_cpu = device.current().kind == "cpu"
        self._numpy_weight = None

    def loss(self, hidden: Any, targets: Any, with_gradient: bool) -> tuple[float, Any]:
        """hidden: (N, width); targets: (N,) int32. Returns the summed loss in nats and its gradient (N, width), or None without."""
        if self._on_cpu:
            return self._loss_numpy(hidden, targets, with_gradient)
        return self._loss_mlx(hidden, targets, with_gradient)

    def _loss_mlx(self, hidden: Any, targets: Any, with_gradient: bool) -> tuple[float, Any]:
        total, gradients = mx.array(0.0), []
        hidden = mx.stop_gradient(hidden)
        for start in range(0, hidden.shape[0], self.chunk):
            loss, gradient = self._chunk_mlx(hidden[start : start + self.chunk], targets[start : start + self.chunk], with_gradient)
            total = total + loss
            gradients.append(gradient)
            mx.eval(total, gradient)
        return total.item(), mx.concatenate(gradients) if with_gradient else None

    def _chunk_mlx(self, hidden: Any, targets: Any, with_gradient: bool) -> tuple[Any, Any]:
        logits = (hidden @ self.weight.T).astype(mx.float32)
        slope = None
        if self.soft_cap:
            capped = mx.tanh(logits / self.soft_cap)
            logits, slope = capped * self.soft_cap, 1 - capped * capped
        log_sum = mx.logsumexp(logits, axis=-1, keepdims=True)
        at_target = mx.take_along_axis(logits, targets[:, None], axis=-1)
        loss = (log_sum - at_target).sum()
        if not with_gradient:
            return loss, mx.array(0.0)
        gradient = mx.exp(logits - log_sum)
        gradient = mx.put_along_axis(gradient, targets[:, None], mx.take_along_axis(gradient, targets[:, None], axis=-1) - 1, axis=-1)
        if slope is not None:
            gradient = gradient * slope
        return loss, gradient.astype(self.weight.dtype) @ self.weight

    def _loss_numpy(self, hidden: Any, targets: Any, with_gradient: bool) -> tuple[float, Any]:
        """The same in numpy: its exp is many times faster than MLX's on a CPU, and every pass is in place."""
        import numpy as np

        if self._numpy_weight is None:
            self._numpy_weight = np.array(self.weight, copy=False)
        states, wanted = np.array(hidden), np.array(targets)
        gradient = np.empty_like(states) if with_gradient else None
        total = 0.0
        for start in range(0, len(states), self.chunk):
            part = slice(start, start + self.chunk)
            total += _chunk_numpy(states[part], wanted[part], self._numpy_weight, self.soft_cap, None if gradient is None else gradient[part])
        return total, None if gradient is None else mx.array(gradient)


def _chunk_numpy(states: Any, targets: Any, weight: Any, soft_cap: float | None, gradient: Any) -> float:
    """Summed loss of one chunk, in float64; fills `gradient` when given."""
    import numpy as np

    logits = states @ weight.T
    slope = None
    if soft_cap:
        np.tanh(np.divide(logits, soft_cap, out=logits), out=logits)
        slope = 1 - logits * logits
        logits *= soft_cap
    rows = np.arange(len(targets))
    highest = logits.max(axis=1, keepdims=True)
    at_target = logits[rows, targets].astype(np.float64)
    logits -= highest
    np.exp(logits, out=logits)
    sums = logits.sum(axis=1, keepdims=True, dtype=np.float64)
    loss = float((np.log(sums[:, 0]) + highest[:, 0] - at_target).sum())
    if gradient is not None:
        logits *= (1 / sums).astype(np.float32)
        logits[rows, targets] -= 1
        if slope is not None:
            logits *= slope
        np.matmul(logits, weight, out=gradient)
    return loss


def _dense_weight(layer: Any) -> Any:
    """A quantised head is unpacked once; it is frozen."""
    if "scales" in layer:
        return mx.dequantize(layer.weight, layer.scales, layer.biases, group_size=layer.group_size, bits=layer.bits)
    return layer.weight
