"""EB-Sampler's three errors against a plain loop, on the cases of its golden data (whose own order is the entropy's)."""

from __future__ import annotations

import numpy as np
import pytest

from attn_sampler import samplers
from test_golden_samplers import cases_of, selected, window_of


def plain(logits: list[list[float]], masked: list[int], mask_id: int, gamma: float, k: int, error: str) -> list[int]:
    """Down the order, as long as the entropies without their largest stay within the bound."""
    p = np.exp(np.delete(np.array(logits), mask_id, 1))
    p /= p.sum(1, keepdims=True)
    nats = -(p * np.log(p)).sum(1)
    best = np.sort(p, 1)[:, ::-1]
    errors = {"entropy": nats, "confidence": 1 - best[:, 0], "margin": best[:, 1] - best[:, 0]}[error]
    order = sorted((j for j, m in enumerate(masked) if m), key=lambda j: (errors[j], j))
    for n in range(len(order), 0, -1):
        taken = [nats[j] for j in order[:n]]
        if n <= k or sum(taken) - max(taken) <= gamma:
            return sorted(order[:n])
    return []


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.7, 3.0])
@pytest.mark.parametrize("error", ["entropy", "confidence", "margin"])
def test_against_a_plain_loop(error: str, gamma: float, k: int) -> None:
    answers = []
    for case in cases_of("eb_sampler"):
        chosen, score = selected(samplers.build("eb", {"gamma": gamma, "error": error}), window_of(case, k))
        assert chosen == plain(case["logits"], case["masked"], case["mask_id"], gamma, k, error)
        answers.append(chosen)
        assert score.shape == (len(case["masked"]),)
    assert len(answers) >= 40
    assert any(len(chosen) > k for chosen in answers) or gamma == 0.0


def test_the_errors_disagree() -> None:
    """Else the option would be idle."""
    built = [samplers.build("eb", {"gamma": 0.05, "error": error}) for error in ("entropy", "confidence", "margin")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert any(selected(built[one], w)[0] != selected(built[other], w)[0] for w in map(window_of, cases_of("eb_sampler")))
