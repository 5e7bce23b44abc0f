"""Hand-made runs: Steps without a model, for tests of what consumes them."""

from __future__ import annotations

from hypothesis import strategies as st

from attn_sampler.results import Result, Step

MASK, EOS = 0, 1
PIECES = ["<mask>", "<eos>", "a", " b", "\n", "é", "</script><!--", "\x1b[31m", "日", "&amp;", "\u2028", "x\ny"]


def piece(token: int) -> str:
    return PIECES[token]


def run(commits: list[list[tuple[int, int]]], length: int = 6, row: int = 0, prompt: tuple[int, ...] = (2, 3)) -> list[Step]:
    """A row in which step k commits the (offset in the answer, token) pairs ``commits[k]``; finished if that leaves no mask."""
    start, ids = len(prompt), [*prompt, *[MASK] * length]
    steps = []
    for forward, pairs in enumerate(commits, 1):
        window = [i for i, t in enumerate(ids) if t == MASK]
        for offset, token in pairs:
            ids[start + offset] = token
        masked = [i for i, t in enumerate(ids) if t == MASK]
        result = None if masked else Result("text", ids[start:], "length", start, length, forward, 0.5, 7)
        positions = [start + offset for offset, _ in pairs]
        steps.append(
            Step(
                row=row, forward=forward, ids=list(ids), masked=masked, start=start,
                positions=positions, tokens=[token for _, token in pairs],
                confidences=[1 / (1 + i) for i in positions], window=window, scores=[float(i % 4) for i in window],
                settled=masked[0] if masked else len(ids), delta="", result=result,
            )
        )  # fmt: skip
    return steps


@st.composite
def runs(draw: st.DrawFn, row: int = 0) -> list[Step]:
    """Any run: fixed tokens in the answer, several commits and re-masks per step, any floats as scores, cut off anywhere."""
    tokens = st.integers(1, len(PIECES) - 1)
    ids = draw(st.lists(tokens, min_size=1, max_size=12))
    start = draw(st.integers(0, len(ids) - 1))
    ids[start] = MASK  # the answer begins with its first mask
    for i in range(start + 1, len(ids)):
        ids[i] = draw(st.sampled_from([MASK, ids[i]]))
    fixed = {i for i, t in enumerate(ids) if t != MASK}
    steps: list[Step] = []
    for forward in range(1, draw(st.integers(1, 6)) + 1):
        window = [i for i, t in enumerate(ids) if t == MASK]
        if not window:
            break
        positions = draw(st.lists(st.sampled_from(window), min_size=1, unique=True))
        committed = {i: draw(tokens) for i in positions}
        for i, token in committed.items():
            ids[i] = token
        again = draw(st.lists(st.sampled_from(sorted(set(range(start, len(ids))) - fixed)), unique=True, max_size=2))
        if forward > 1:  # what a first Step re-masks it must itself have committed
            for i in again:
                ids[i] = MASK
        masked = [i for i, t in enumerate(ids) if t == MASK]
        steps.append(
            Step(
                row=row, forward=forward, ids=list(ids), masked=masked, start=start, positions=list(committed),
                tokens=list(committed.values()), confidences=[draw(st.floats(0, 1)) for _ in committed], window=window,
                scores=[draw(st.floats()) for _ in window],
                settled=draw(st.integers(0, len(ids))), delta=draw(st.text(max_size=3)),
                result=None if masked else Result("t", ids[start:], "stop", start, 3, forward, 0.25, 2**62 + 1),
            )
        )  # fmt: skip
    return steps
