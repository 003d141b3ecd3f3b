"""Cross-entropy of the next token from hidden states, in chunks: the logits of a batch never exist at once.

With a vocabulary of 256 thousand words the logits of 400 targets are 400 MB, and the head is most of a small model's arithmetic. The
head is frozen, so the gradient of the hidden states is known as soon as the softmax is: dH = (softmax(H Wᵀ) - onehot) W, two matrix
products in all and nothing kept.
"""

from __future__ import annotations

from typing import Any

from generators import device
from generators.device import load_mlx
from generators.train.fused import fused

mx = load_mlx()

# Of float32 logits at a time. A GPU has some of them in flight at once, which a Mac's memory feels and large matrix units need.
_CHUNK_BYTES = {"cuda": 256 * 1024 * 1024, "metal": 128 * 1024 * 1024, "cpu": 256 * 1024 * 1024}


class Head:
    """The frozen output layer of a model. soft_cap: gemma2's final cap on logits, or None."""

    def __init__(self, model: Any):
        self.soft_cap: float | None = getattr(model, "final_logit_softcapping", None)
        layer = model.lm_head if "lm_head" in model else model.model.embed_tokens
        self.state = {"weight": _dense_weight(layer)}  # a dict, so that a compiled function can be told that it reads it
        rows = _CHUNK_BYTES[device.current().kind] // (4 * self.weight.shape[0])
        self.chunk = rows // 64 * 64 or max(16, rows)  # whole tiles of matrix units

    @property
    def weight(self) -> Any:
        """(vocabulary, width)"""
        return self.state["weight"]

    def loss(self, hidden: Any, targets: Any, weights: Any, with_gradient: bool) -> tuple[Any, Any]:
        """hidden: (N, width); targets: (N,) int32; weights: (N,) float32, of each target in the sum.

        Returns the summed loss in nats, a float32 scalar, and its gradient (N, width), or None
        without; both lazy."""
        total, gradients = mx.array(0.0), list[Any]()
        hidden = mx.stop_gradient(hidden)
        for start in range(0, hidden.shape[0], self.chunk):
            part = slice(start, start + self.chunk)
            own = hidden[part]
            if start:  # without an order, all losses are computed before any gradient, and the logits of all chunks wait for that
                own = mx.depends([own], [total, *gradients[-1:]])[0]
            loss, gradient = self._chunk(own, targets[part], weights[part], with_gradient)
            total = total + loss
            if with_gradient:
                gradients.append(gradient)
        return total, mx.concatenate(gradients) if with_gradient else None

    def _chunk(self, hidden: Any, targets: Any, weights: Any, with_gradient: bool) -> tuple[Any, Any]:
        logits = hidden @ self.weight.T
        if self.soft_cap:
            logits = fused(_capped)(logits, mx.array(self.soft_cap))
        losses = mx.fast.cross_entropy(logits, targets)
        loss = (losses * weights).sum()
        if not with_gradient:
            return loss, None
        columns = targets[:, None]
        log_sum = losses[:, None] + mx.take_along_axis(logits, columns, axis=-1)
        gradient = fused(_share)(logits, log_sum, weights[:, None])
        # a target's own is 1 less: as nearly 0 as that may be, it is computed by itself
        of_targets = fused(_of_target)(losses, weights)[:, None].astype(gradient.dtype)
        gradient = mx.put_along_axis(gradient, columns, of_targets, axis=-1)
        if self.soft_cap:
            gradient = fused(_through_cap)(gradient, logits, mx.array(self.soft_cap))
        return loss, gradient.astype(self.weight.dtype) @ self.weight


def _share(logits: Any, log_sum: Any, weights: Any) -> Any:
    """softmax(logits), each row times its weight, in the dtype of the logits."""
    return (mx.exp(logits.astype(mx.float32) - log_sum) * weights).astype(logits.dtype)


def _of_target(losses: Any, weights: Any) -> Any:
    """The gradient of a target's logit."""
    return mx.expm1(-losses) * weights


def _capped(logits: Any, cap: Any) -> Any:
    """float32, as a cap's end is flat."""
    return mx.tanh(logits.astype(mx.float32) / cap) * cap


def _through_cap(gradient: Any, capped: Any, cap: Any) -> Any:
    share = capped / cap
    return gradient * (1 - share * share)


def _dense_weight(layer: Any) -> Any:
    """A quantised head is unpacked once; it is frozen."""
    if "scales" in layer:
        return mx.dequantize(layer.weight, layer.scales, layer.biases, group_size=layer.group_size, bits=layer.bits)
    return layer.weight
