"""What the embedded model's attention knows: who is decidable, and who depends on whom.

    python recipes/attention_signals.py --n 120

On canvases of calibration problems as Fast-dLLM's threshold leaves them after none, one or two forward passes, over the masks
that are not sure yet (probability of the best token below 0.995), for every layer and their mean:

- rank correlation within a canvas between column sums and confidence: what an *order* by attention would need;
- rank correlation over pairs of masks between attention (mean of both directions, true softmax) and mutual information, the
  Σ_v p_j(v) KL(p_i given x_j = v || p_i) of the model itself (the larger of both directions; v are j's three likeliest tokens):
  what a rule needs that says who may be written *together*.

Weights of the layers are fitted by least squares on half of the canvases and judged on the other half. Minutes on one CPU thread.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

import attn_sampler as ats
from attention_orders import CALIBRATION, problems
from attn_sampler.attention import AttentionAsk
from attn_sampler.evals.pages import Table, Text, markdown
from attn_sampler.evals.statistics import bootstrap, spearman
from attn_sampler.models.seam import Ask, Model
from attn_sampler.seam import Attention

SURE, LEAST, TOKENS = 0.995, 0.005, 3


@dataclass(frozen=True)
class Seen:
    """One canvas: its unsure masks.

    Attributes:
        confidence: of each.
        columns: per layer, over all masks.
        attention: per layer, mean of both directions.
        shared: mutual information of each two, nats.
    """

    confidence: Float64[Tensor, " masks"]
    columns: Float64[Tensor, "layers masks"]
    attention: Float64[Tensor, "layers masks masks"]
    shared: Float64[Tensor, "masks masks"]


def log_p(model: Model, ids: Int[Tensor, "rows length"]) -> Float[Tensor, "rows length vocab"]:
    logits = torch.cat([model.logits(part, None) for part in ids.split(64)]).float()
    logits[..., model.mask_id] = -torch.inf
    return logits.log_softmax(-1).clamp(min=-100.0)


def partly_written(model: Model, ids: Int[Tensor, "1 length"], passes: int, threshold: float = 0.7) -> Int[Tensor, "1 length"]:
    """The canvas after so many passes of Fast-dLLM's rule."""
    for _ in range(passes):
        p, tokens = log_p(model, ids).exp().max(-1)
        masked = ids == model.mask_id
        best = p.masked_fill(~masked, 0.0).amax(1, keepdim=True)
        ids = torch.where(masked & (p >= best.clamp(max=threshold)), tokens, ids)
    return ids


def look(model: Model, ids: Int[Tensor, "1 length"]) -> Seen | None:
    """One canvas; None where fewer than four masks are unsure."""
    masks = (ids[0] == model.mask_id).nonzero()[:, 0]
    before = log_p(model, ids)[0, masks]
    p = before.exp()
    unsure = (p.amax(1) < SURE).nonzero()[:, 0]
    if len(unsure) < 4:
        return None
    row, all_ = torch.tensor([0]), torch.ones(1, len(masks), dtype=torch.bool)
    asks = [
        AttentionAsk(Attention("masked", "global", layers=(layer,), pairwise=True), row, masks[None], all_, masks[None], all_)
        for layer in range(model.num_layers)
    ]
    found = model.predict(ids, None, [Ask(row, masks[None], ask) for ask in asks])
    attention = torch.stack([x.pairwise[0] for x in found if x.pairwise is not None])[:, unsure[:, None], unsure]
    columns = torch.stack([x.columns[0] for x in found if x.columns is not None])[:, unsure]
    likely = p[unsure].topk(TOKENS)
    j, k = (likely.values > LEAST).nonzero().T
    tried = ids.repeat(len(j), 1)
    tried[torch.arange(len(j)), masks[unsure[j]]] = likely.indices[j, k]
    after = log_p(model, tried)[:, masks[unsure]]
    gained = (after.exp() * (after - before[unsure])).sum(-1) * likely.values[j, k][:, None]  # (tried, masks)
    shared = torch.zeros(len(unsure), len(unsure)).index_add_(0, j, gained)
    return Seen(
        likely.values[:, 0].double(),
        columns.double(),
        ((attention + attention.mT) / 2).double(),
        torch.maximum(shared, shared.T).double(),
    )


def fitted(x: Float64[Tensor, "layers n"], y: Float64[Tensor, " n"], ridge: float = 0.03) -> Float64[Tensor, " layers"]:
    """Weights of standardised layers by least squares; ridge keeps those that hardly differ small."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean()
    deviation = x.std(1, keepdim=True).clamp(min=1e-9)
    x = x / deviation
    gram = x @ x.T / len(y) + ridge * torch.eye(len(x), dtype=x.dtype)
    return torch.linalg.solve(gram, x @ y / len(y)) / deviation[:, 0]


def standard(x: Float64[Tensor, "*rows n"]) -> Float64[Tensor, "*rows n"]:
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).clamp(min=1e-9)


def pairs(seen: Seen) -> tuple[Float64[Tensor, "layers pairs"], Float64[Tensor, " pairs"]]:
    i, j = torch.triu_indices(len(seen.shared), len(seen.shared), 1)
    return seen.attention[:, i, j], seen.shared[i, j]


def correlations(found: list[Seen]) -> list[list[str]]:
    """One line per layer, their mean, the last two, and fitted weights (of the second half only)."""
    half = len(found) // 2
    order = fitted(
        torch.cat([standard(s.columns) for s in found[:half]], 1), torch.cat([standard(s.confidence) for s in found[:half]])
    )
    joint = fitted(torch.cat([pairs(s)[0] for s in found[:half]], 1), torch.cat([pairs(s)[1].sqrt() for s in found[:half]]))
    count = len(order)
    one = torch.eye(count, dtype=torch.float64)
    lines = {f"layer {layer}": (one[layer], one[layer], found) for layer in range(count)}
    lines["mean of all"] = (one.mean(0), one.mean(0), found)
    lines["mean of the last two"] = (one[-2:].mean(0), one[-2:].mean(0), found)
    lines["fitted, other half"] = (order, joint, found[half:])
    out = []
    for name, (columns, attention, some) in lines.items():
        alone = [spearman(columns @ (standard(s.columns) if "fitted" in name else s.columns), s.confidence) for s in some]
        together = [spearman(attention @ pairs(s)[0], pairs(s)[1]) for s in some]
        out.append([name, _mean(alone), _mean(together)])
    shown = (" ".join(f"{w:+.2f}" for w in weights / weights.abs().max()) for weights in (order, joint))
    return [*out, ["weights of the layers", *shown]]


def _mean(values: list[float]) -> str:
    x = torch.tensor([v for v in values if v == v], dtype=torch.float64)
    low, high = bootstrap(x[:, None])
    return f"{x.mean():+.2f} ({float(low):+.2f} – {float(high):+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--n", type=int, default=120, help="problems of each task")
    args = parser.parse_args()
    engine = ats.load(args.model)
    model, params = engine.model, ats.SamplingParams(max_new_tokens=32)
    out: list[Text | Table] = []
    with torch.no_grad():
        for task, questions in problems(("sudoku4", "word"), args.n, CALIBRATION).items():
            rows = [torch.tensor([engine.prepare(questions.prompt(p), params).ids]) for p in questions.problems]
            looked = [look(model, partly_written(model, ids, i % 3)) for i, ids in enumerate(rows)]
            found = [seen for seen in looked if seen is not None]
            header = ["attention of", "columns and confidence", "pairs and mutual information"]
            out += [Text(f"**{task}**, {len(found)} canvases"), Table(header, correlations(found), words=2)]
    print(markdown(out))


if __name__ == "__main__":
    main()
