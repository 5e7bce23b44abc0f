"""The paper's ablations (arXiv 2604.08564, Figures 2 and 3) as studies: what each choice inside Attn-Sampler is worth.

Each is a list of settings; the first is what the others are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attn_sampler.errors import UnknownNameError
from attn_sampler.evals.study import Setting
from attn_sampler.models.seam import Model

__all__ = ["ABLATIONS", "settings"]

SEQUENTIAL = "attention-sequential"
POINTS = 8  # of a curve over layers or heads


def spread(n: int, points: int = POINTS) -> list[int]:
    """1 .. n, thinned out evenly to about so many where there are more; both ends stay."""
    return sorted({round(1 + i * (n - 1) / (points - 1)) for i in range(points)}) if n > points else list(range(1, n + 1))


def layers(model: Model) -> list[Setting]:
    """Column sums of the first k layers, and of single layers."""
    n = model.num_layers
    first = [Setting(f"layers 0–{k - 1}" if k > 1 else "layer 0", SEQUENTIAL, {"layers": tuple(range(k))}) for k in spread(n)]
    single = [Setting(f"layer {k - 1}", SEQUENTIAL, {"layers": (k - 1,)}) for k in spread(n)[1:]]
    return [Setting(f"all {n} layers", SEQUENTIAL), *(s for s in first if s.options["layers"] != tuple(range(n))), *single]


def heads(model: Model) -> list[Setting]:
    """Column sums of the first k query heads of every layer."""
    n = model.num_heads
    some = [k for k in spread(n) if k < n]
    first = [Setting(f"heads 0–{k - 1}" if k > 1 else "head 0", SEQUENTIAL, {"heads": tuple(range(k))}) for k in some]
    return [Setting(f"all {n} heads", SEQUENTIAL), *first]


def rule(model: Model) -> list[Setting]:
    """Dynamic threshold against a fixed number per forward and against static score thresholds."""
    taus, scores = (0.95, 0.8, 0.7, 0.6, 0.5), (1.2, 1.1, 1.0, 0.9, 0.8)
    dynamic = [Setting(f"dynamic {t}", "attention", {"threshold": t}, "dynamic threshold") for t in taus]
    fixed = [Setting(f"top-{k}", "attention-fixed", {"k": k}, "top-k") for k in (2, 3, 4)]
    static = [Setting(f"score > {x}", "attention-fixed", {"k": 1, "score_threshold": x}, "static threshold") for x in scores]
    first = Setting("dynamic 0.9", "attention", {}, "dynamic threshold")
    return [first, *dynamic, Setting("sequential", SEQUENTIAL, {}, "sequential"), *fixed, *static]


def threshold(model: Model) -> list[Setting]:
    """Probability threshold swept: Attn-Sampler with both fallbacks, and Fast-dLLM's confidence threshold."""
    conf = "attention, fallback=conf"
    taus = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
    return [
        *(Setting(f"attention {t}", "attention", {"threshold": t}, "attention") for t in taus),
        *(Setting(f"{conf} {t}", "attention", {"threshold": t, "fallback": "conf"}, conf) for t in taus),
        *(Setting(f"fast-dllm {t}", "fast-dllm", {"threshold": t}, "fast-dllm") for t in taus),
    ]


ABLATIONS: Mapping[str, Callable[[Model], list[Setting]]] = {
    "layers": layers, "heads": heads, "rule": rule, "threshold": threshold,
}  # fmt: skip


def settings(name: str, model: Model) -> Sequence[Setting]:
    """The settings of one ablation on this model."""
    if name not in ABLATIONS:
        raise UnknownNameError("ablation", name, ABLATIONS)
    return ABLATIONS[name](model)
