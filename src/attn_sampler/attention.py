"""Attention statistics beside the fused kernel: column sums and window matrices, no n x n tensor per head.

A fused kernel returns, with its output, each query row's log-sum-exp. The attention of chosen queries to chosen keys then is
``exp(q k^T scale + bias - lse)``: one small (queries x keys) product per layer and head, exact, averaged over heads and layers in
float32 as the forward pass goes. ``norm="local"`` needs no log-sum-exp at all. The function is registered with transformers'
`AttentionInterface`; the collector travels down the model's keyword arguments: no global state, nothing patched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed, nn

from attn_sampler.errors import AttnSamplerError
from attn_sampler.seam import Attention

__all__ = ["IMPLEMENTATION", "AttentionAsk", "Collector", "Statistics", "register"]

IMPLEMENTATION = "attn_sampler"
"""The name under which the attention function is registered with transformers."""

CHUNK = 64
"""Query rows whose attention is held per head at a time: no more than (heads × CHUNK × keys) numbers, however wide the window."""


@dataclass(frozen=True)
class AttentionAsk:
    """Whose attention to what is wanted.

    Attributes:
        statistics: how it is normalised and averaged.
        rows: rows of the batch.
        queries: query positions, as indices along the model's query axis.
        counted: queries that enter the column sums.
        keys: key positions, as indices along the model's key axis.
        real: keys that exist (the others are padding of the window).
        first: position of each row's first query; None where the query axis is the last stretch of the key axis.
        everyone: queries that exist, along the model's query axis, for ``sinks``.
        known: keys that hold a token, along the model's key axis, for ``known_mass``.
    """

    statistics: Attention
    rows: Int[Tensor, " some"]
    queries: Int[Tensor, "some queries"]
    counted: Bool[Tensor, "some queries"]
    keys: Int[Tensor, "some width"]
    real: Bool[Tensor, "some width"]
    first: Int[Tensor, " some"] | None = None
    everyone: Bool[Tensor, "some every"] | None = None
    known: Bool[Tensor, "some length"] | None = None


class Statistics(NamedTuple):
    """What one `AttentionAsk` gets: means over the layers and heads, None where not asked for."""

    columns: Float[Tensor, "some width"]
    pairwise: Float[Tensor, "some queries width"] | None
    sinks: Float[Tensor, "some width"] | None
    known_mass: Float[Tensor, "some queries"] | None


class Collector:
    """Adds up statistics while one forward pass goes through its layers.

    Args:
        asks: what is wanted.
        group: the processes over which the heads are spread in equal parts, in order; None where all are here.
    """

    def __init__(self, asks: Sequence[AttentionAsk], group: Any | None = None) -> None:
        self.asks, self.group = asks, group
        self.parts, self.part = (1, 0) if group is None else (distributed.get_world_size(group), distributed.get_rank(group))
        self._sums: list[dict[str, Tensor]] = [{} for _ in asks]
        self._layers = [0] * len(asks)

    def _active(self, layer: int) -> list[int]:
        return [i for i, ask in enumerate(self.asks) if ask.statistics.layers is None or layer in ask.statistics.layers]

    def wants_log_sum_exp(self, layer: int) -> bool:
        return any(self.asks[i].statistics.norm == "global" for i in self._active(layer))

    def add(
        self,
        layer: int,
        query: Float[Tensor, "rows heads queries dim"],
        key: Float[Tensor, "rows kv_heads keys dim"],
        bias: Float[Tensor, ...] | None,
        scale: float,
        log_sum_exp: Float[Tensor, "rows heads queries"] | None,
    ) -> None:
        """Take one layer's queries and keys (after rotary embedding, key heads not repeated)."""
        for i in self._active(layer):
            ask, sums = self.asks[i], self._sums[i]

            def matrix(ask: AttentionAsk) -> Float[Tensor, "some asked width"]:
                return window_attention(ask, query, key, bias, scale, log_sum_exp, self.part, self.parts)

            columns, pairwise = _over_queries(ask, matrix, keep=ask.statistics.pairwise)
            new = {"columns": columns} if pairwise is None else {"columns": columns, "pairwise": pairwise}
            if ask.everyone is not None:
                there = ask.everyone[:, : query.shape[2]]
                every = torch.arange(there.shape[1], device=key.device).expand_as(there)
                total, _ = _over_queries(replace(ask, queries=every, counted=there), matrix)
                new["sinks"] = total / there.sum(1, keepdim=True)
            if ask.known is not None:
                everywhere = torch.arange(ask.known.shape[1], device=key.device).expand_as(ask.known)
                known = replace(ask, keys=everywhere, real=ask.known)
                masses = [matrix(part).sum(-1) for part in _stretches(known)]
                new["known_mass"] = masses[0] if len(masses) == 1 else torch.cat(masses, 1)
            for name, value in new.items():
                sums[name] = sums[name] + value if name in sums else value
            self._layers[i] += 1

    def result(self, i: int) -> Statistics:
        """The statistics of one ask: means over the layers seen and the heads of all processes."""
        sums = self._sums[i]
        if not sums:
            raise AttnSamplerError("the model ran no layer through the attention hook; was its implementation changed?")
        if self.parts > 1:
            for value in sums.values():
                distributed.all_reduce(value, group=self.group)
        means = {name: value / self._layers[i] for name, value in sums.items()}
        return Statistics(means["columns"], means.get("pairwise"), means.get("sinks"), means.get("known_mass"))


def _stretches(ask: AttentionAsk) -> Iterator[AttentionAsk]:
    """The same question about `CHUNK` of its queries at a time."""
    if ask.queries.shape[1] <= CHUNK:
        yield ask
        return
    for low in range(0, ask.queries.shape[1], CHUNK):
        part = slice(low, low + CHUNK)
        yield replace(ask, queries=ask.queries[:, part], counted=ask.counted[:, part])


def _over_queries(
    ask: AttentionAsk, matrix: Callable[[AttentionAsk], Float[Tensor, "some asked width"]], keep: bool = False
) -> tuple[Float[Tensor, "some width"], Float[Tensor, "some queries width"] | None]:
    """Sums of each asked column over the counted queries, stretch by stretch; the whole matrix too, if it is to be kept."""
    kept: list[Tensor] = []
    columns = None
    for part in _stretches(ask):
        piece = matrix(part)
        new = torch.einsum("rqk,rq->rk", piece, part.counted.to(piece.dtype))
        columns = new if columns is None else columns.add_(new)
        if keep:
            kept.append(piece)
    assert columns is not None, "there is a stretch, if of no queries"
    if not keep:
        return columns, None
    return columns, kept[0] if len(kept) == 1 else torch.cat(kept, 1)


def window_attention(
    ask: AttentionAsk,
    query: Float[Tensor, "rows heads queries dim"],
    key: Float[Tensor, "rows kv_heads keys dim"],
    bias: Float[Tensor, ...] | None,
    scale: float,
    log_sum_exp: Float[Tensor, "rows heads queries"] | None,
    part: int = 0,
    parts: int = 1,
) -> Float[Tensor, "some asked width"]:
    """One layer's attention of the asked queries to the asked keys, mean over query heads, float32.

    Where ``query`` holds the ``part``-th of ``parts`` equal shares of the heads, its share of that mean.
    """
    rows = ask.rows[:, None]
    group = query.shape[1] // key.shape[1]
    q = query[rows, :, ask.queries].transpose(1, 2).float()  # (some, heads, asked, dim)
    k = key[rows, :, ask.keys].transpose(1, 2).float().repeat_interleave(group, 1)
    held, wanted = query.shape[1], ask.statistics.heads
    count = held * parts if wanted is None else len(wanted)
    heads = None if wanted is None else [head - part * held for head in wanted if head // held == part]
    if heads is not None:
        q, k = q[:, heads], k[:, heads]
    logits = (q @ k.mT) * scale
    if ask.statistics.norm == "local":
        a = logits.masked_fill(~ask.real[:, None, None], -torch.inf).softmax(-1)
    else:
        if bias is not None:
            logits = logits + _bias_at(bias, ask).float()
        if log_sum_exp is None:
            raise AttnSamplerError("global attention statistics need the kernel's log-sum-exp")
        lse = log_sum_exp[rows, :, ask.queries].transpose(1, 2)
        a = (logits - (lse if heads is None else lse[:, heads])[..., None]).exp()
        a = a.masked_fill(~ask.real[:, None, None], 0.0)
    a = a.sum(1) / count
    if not ask.statistics.diag:
        first = torch.full_like(ask.rows, key.shape[2] - query.shape[2]) if ask.first is None else ask.first
        a = a.masked_fill((ask.queries + first[:, None])[:, :, None] == ask.keys[:, None], 0.0)
    return a


def _bias_at(bias: Tensor, ask: AttentionAsk) -> Float[Tensor, "some heads asked width"]:
    """The entries of an additive mask (rows | 1, heads | 1, queries | 1, keys) at the asked queries and keys."""
    rows = ask.rows if bias.shape[0] > 1 else torch.zeros_like(ask.rows)
    queries = ask.queries if bias.shape[2] > 1 else torch.zeros_like(ask.queries)
    picked = bias[rows[:, None, None], :, queries[:, :, None], ask.keys[:, None]]
    return picked.permute(0, 3, 1, 2)


def _fused(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> tuple[Float[Tensor, "rows heads queries dim"], Float[Tensor, "rows heads queries"]]:
    """Attention output and log-sum-exp from the fused kernel of the device; key and value heads already repeated."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=bias, scale=scale)
    if query.device.type == "cuda":
        if bias is not None:
            bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
            if bias.stride(-1) != 1 or bias.shape[-1] % 16:  # the kernel wants rows padded to 16 elements
                room = -bias.shape[-1] % 16
                bias = F.pad(bias, (0, room))[..., : bias.shape[-1]]
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, scale=scale)
        return out, lse[..., : query.shape[2]]  # the kernel pads the log-sum-exp to a multiple of 32
    return _chunked(query, key, value, bias, scale)


def _chunked(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, chunk: int = 64
) -> tuple[Float[Tensor, "rows heads queries dim"], Float[Tensor, "rows heads queries"]]:
    """The same in plain tensor operations for any device, ``chunk`` query rows at a time."""
    outs, sums = [], []
    for low in range(0, query.shape[2], chunk):
        logits = (query[:, :, low : low + chunk] @ key.mT).float() * scale
        if bias is not None:
            logits = logits + (bias[:, :, low : low + chunk] if bias.shape[2] > 1 else bias)
        lse = logits.logsumexp(-1)
        outs.append((logits - lse[..., None]).exp().to(value.dtype) @ value)
        sums.append(lse)
    return torch.cat(outs, 2), torch.cat(sums, 2)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    collector: Collector | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "rows queries heads dim"], None]:
    """The attention function handed to transformers: every query sees every key that the additive mask allows."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    group = query.shape[1] // key.shape[1]
    if collector is not None and collector.wants_log_sum_exp(layer):
        k, v = (x.repeat_interleave(group, 1) for x in (key, value)) if group > 1 else (key, value)
        out, lse = _fused(query, k, v, attention_mask, scaling)
        collector.add(layer, query, key, attention_mask, scaling, lse)
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=group > 1)
        if collector is not None:
            collector.add(layer, query, key, attention_mask, scaling, None)
    return out.transpose(1, 2), None


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> None:
    """No mask means full attention. Padding must arrive as a 4-D additive mask: a 2-D one would be dropped silently here."""
    if attention_mask is not None:
        raise AttnSamplerError("give padding as a 4-D additive mask")


def register() -> None:
    """Make the attention function known to transformers (idempotent)."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
