"""One step through a decoder: the forward pass of a batch, and the gradients of its adapters.

All tokens of the batch are rows of one matrix, cut into blocks of rows; a block goes through everything between two attentions in one
task. After the last layer's keys and values only the rows that predict a target go on: those are *asking*, and have rows of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from generators.train.cpu import attention
from generators.train.cpu.block import Block, Kept, Passing, Tables
from generators.train.cpu.decoder import Decoder
from generators.train.cpu.head import cross_entropy
from generators.train.cpu.kernels import strips
from generators.train.cpu.projection import Gradients
from generators.train.cpu.workers import Arena, Workers, slices
from generators.train.layout import Layout

Array = np.ndarray

_KEPT_SCORES = 64 * 1024 * 1024  # softmax weights that wait for the backward pass: 256 MB; when there are more, they are computed again
_ROWS = (1024, 32)  # of a slice, at most and at least: more make better products, fewer keep more of the workers busy


class Step:
    """One batch through `decoder`. lowest: index of the first layer with an adapter; no gradient goes below it."""

    def __init__(self, decoder: Decoder, lowest: int, layout: Layout, workers: Workers, arena: Arena):
        self.decoder, self.lowest, self.layout, self.workers, self.arena = decoder, lowest, layout, workers, arena
        self.last = len(decoder.layers) - 1
        self.all_rows = slices(layout.tokens, workers.count, *_ROWS)
        self.asking_rows = slices(len(layout.predicting), workers.count, *_ROWS)
        self.gradients: Gradients = {}

    def loss(self) -> float:
        """The summed cross-entropy of the targets, in nats."""
        return self._head(self._forward(keep=False), None)

    def loss_and_gradients(self) -> tuple[float, Gradients]:
        """The loss, and its gradients by the names of the model's parameters."""
        final = self._forward(keep=True)
        slope = self.arena.take(*final.shape)
        loss = self._head(final, slope)
        self._backward(slope)
        return loss, self.gradients

    def _head(self, final: Array, slope: Array | None) -> float:
        return cross_entropy(self.workers, final, self.layout.targets, self.decoder.head, self.decoder.soft_cap, slope)

    def _over(self, rows: Sequence[slice], *parts: Callable[[slice], Gradients | None]) -> None:
        """Each slice of rows through all `parts`; the gradients of the slices are added in their order."""

        def work(piece: slice) -> list[Gradients]:
            return [found for part in parts if (found := part(piece))]

        for gradients in self.workers.run([partial(work, piece) for piece in rows]):
            for found in gradients:
                for name, gradient in found.items():
                    if name in self.gradients:
                        self.gradients[name] += gradient
                    else:
                        self.gradients[name] = gradient

    def _forward(self, keep: bool) -> Array:
        """(asking, width): the normed hidden states that go to the head."""
        self.stack = self._stack(keep)
        first, last = self.stack[0], self.stack[-1]
        self._over(self.all_rows, self._embed, first.enter)
        for block, following in zip(self.stack[:-1], self.stack[1:], strict=True):
            self._attend(block)
            self._over(self.all_rows, block.leave, following.enter)
        self._over(self.asking_rows, last.ask)
        self._attend(last)
        final = self.arena.take(*last.result.shape)
        self._over(self.asking_rows, last.leave, partial(self._final_norm, final))
        return final

    def _stack(self, keep: bool) -> list[Block]:
        """The layers at work. keep: whether for a backward pass, which comes down to the lowest layer with an adapter."""
        layout, decoder, arena = self.layout, self.decoder, self.arena
        tokens, asking, last = layout.tokens, len(layout.predicting), self.last
        by_position = [rope.tables(int(layout.positions.max()) + 1) for rope in decoder.ropes]
        of_all = [Tables.of(tables, layout.positions) for tables in by_position]
        of_asking = [Tables.of(tables, layout.positions[layout.predicting]) for tables in by_position]
        streams = [arena.take(tokens, decoder.width) for _ in (decoder.layers if keep else decoder.layers[:2])]
        with_weights = keep and self._scores() <= _KEPT_SCORES
        not_kept = Kept(decoder, decoder.layers[min(self.lowest, last)], tokens, tokens, arena, False) if self.lowest or not keep else None
        passing = Passing(decoder, decoder.layers[0], tokens, tokens, arena, backward=keep)
        stack = []
        for index, layer in enumerate(decoder.layers[:last]):
            x, result = streams[index % len(streams)], streams[(index + 1) % len(streams)]
            is_kept = keep and index >= self.lowest
            kept = not_kept if not_kept and not is_kept else Kept(decoder, layer, tokens, tokens, arena, with_weights)
            stack.append(Block(decoder, layer, (of_all[layer.rope], of_all[layer.rope]), None, x, result, kept, passing))
        layer, x, result = decoder.layers[last], streams[last % len(streams)], arena.take(asking, decoder.width)
        kept = Kept(decoder, layer, tokens, asking, arena, with_weights)
        passing = Passing(decoder, layer, tokens, asking, arena, backward=keep)
        tables = (of_asking[layer.rope], of_all[layer.rope])
        return [*stack, Block(decoder, layer, tables, layout.predicting, x, result, kept, passing)]

    def _scores(self) -> int:
        """Of attention, in all layers that are kept."""
        runs = attention.runs(self.layout, None)
        return sum(attention.scores_of(run, layer.heads) for layer in self.decoder.layers[self.lowest :] for run in runs)

    def _embed(self, rows: slice) -> None:
        x = self.stack[0].x[rows]
        np.take(self.decoder.embedding, self.layout.ids[rows], axis=0, out=x)
        x *= np.float32(self.decoder.embedding_scale)

    def _final_norm(self, final: Array, rows: slice) -> None:
        for strip in strips(rows, self.decoder.width):
            self.decoder.norm.forward(self.stack[-1].result[strip], final[strip])

    def _final_norm_backward(self, slope: Array, rows: slice) -> None:
        for strip in strips(rows, self.decoder.width):
            self.decoder.norm.backward(slope[strip], self.stack[-1].result[strip], slope[strip])

    def _attend(self, block: Block) -> None:
        kept = block.kept
        arguments = (block.layer.heads, kept.queries, kept.keys, kept.v, kept.mixed, kept.weights)
        self.workers.run([partial(attention.forward, run, *arguments) for run in attention.runs(self.layout, block.asking)])

    def _attend_backward(self, block: Block) -> None:
        kept, passing = block.kept, block.passing
        arguments = (block.layer.heads, kept.queries, kept.keys, kept.v, passing.d_mixed, passing.dq, passing.dk, passing.dv, kept.weights)
        tasks = [partial(attention.backward, run, *arguments) for run in attention.runs(self.layout, block.asking)]
        for prefix, dk, dv in filter(None, self.workers.run(tasks)):
            passing.dk[prefix] += dk
            passing.dv[prefix] += dv

    def _backward(self, slope: Array) -> None:
        """slope: (asking, width), the gradient of what went to the head; it is written over."""
        last = self.stack[self.last]
        self._over(self.asking_rows, partial(self._final_norm_backward, slope), partial(last.leave_backward, slope))
        self._attend_backward(last)
        self._over(self.asking_rows, partial(last.ask_backward, slope))
        dx = self.arena.take(self.layout.tokens, self.decoder.width)
        dx[...] = 0
        dx[self.layout.predicting] = slope
        for index in range(self.last, self.lowest, -1):
            block, before = self.stack[index], self.stack[index - 1]
            self._over(self.all_rows, partial(block.enter_backward, dx), partial(before.leave_backward, dx))
            self._attend_backward(before)
        self._over(self.all_rows, partial(self.stack[self.lowest].enter_backward, None))


def kept_per_token(decoder: Decoder) -> int:
    """How many numbers of a token wait for the backward pass, at most, but for softmax weights."""
    arena, tokens = Arena(), 16
    for layer in decoder.layers:
        arena.take(tokens, decoder.width)
        Kept(decoder, layer, tokens, tokens, arena, keep_weights=False)
    return arena.taken // tokens
