"""What a report says of time and memory: the table, its marks and its footnotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attn_sampler.evals.metrics import Summary
from attn_sampler.evals.pages import Block, Table, Text

__all__ = ["BUSY_MARK", "busy", "busy_note", "speed"]

BUSY = 0.8  # share of the time with a processor, below which a setting is marked
BUSY_MARK = " *"


def speed(device: str, task: str, some: Sequence[Summary], costs: Mapping[str, Mapping[str, float]]) -> list[Block]:
    """The settings of one task.

    Args:
        device: as the card names it.
        costs: setting → as `attn_sampler.evals.cost.shares` gives them.
    """
    known = any(s.peak_bytes is not None for s in some)
    rows = [
        [s.setting, f"{s.tokens_per_s:.1f}{BUSY_MARK if busy(device, s) else ''}", f"{s.seconds:.1f}",
         f"{1000 * s.latency_p50_s:.0f}", f"{1000 * s.latency_p95_s:.0f}",
         *([_mebibytes(s.peak_bytes)] if known else []),
         *_shares(costs.get(s.setting, {}))]
        for s in some
    ]  # fmt: skip
    memory = "memory added, MiB" if device.startswith("cpu") else "peak memory, MiB"
    header = ["setting", "tokens per s", "time, s", "latency p50, ms", "latency p95, ms", *([memory] if known else []),
              "in the sampler", "in attention statistics"]  # fmt: skip
    notes = busy_note(device, task, some)
    if not known:
        notes.append("This system does not tell the peak memory of a part of a process, so there is no column of it.")
    return [Table(header, rows), *map(Text, notes)]


def _mebibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**20:.0f}"


def busy(device: str, summary: Summary) -> bool:
    """Whether the thread of the passes waited so long for a processor that times say more of the machine than of the setting.

    Only on a CPU: with a GPU the thread waits for that.
    """
    return device.startswith("cpu") and summary.cpu_share is not None and summary.cpu_share < BUSY


def busy_note(device: str, task: str, some: Sequence[Summary]) -> list[str]:
    """The footnote of settings that are marked as measured on a busy machine; nothing where none is."""
    shares = [s.cpu_share for s in some if s.cpu_share is not None and busy(device, s)]
    if not shares:
        return []
    span = " to ".join(dict.fromkeys(f"{100 * share:.0f} %" for share in (min(shares), max(shares))))
    return [
        f"{BUSY_MARK.strip()} {task}: the machine was busy. The thread that runs the passes had a processor in only {span} of "
        "the time of these settings: on a quiet machine they are faster."
    ]


def _shares(cost: Mapping[str, float]) -> tuple[str, str]:
    """In the sampler, in attention statistics; what is lost in the noise of the clock is a bound."""
    if not cost:
        return "–", "–"
    share, low, high = (100 * cost.get(f"attention_{name}", 0.0) for name in ("share", "low", "high"))
    if "attention_low" not in cost:
        statistics = "none read" if share == 0 else "–"
    elif low <= 0:
        statistics = f"< {max(0.1, abs(low), abs(high)):.1f} %"
    else:
        statistics = f"{share:.1f} % ({low:.1f} – {high:.1f})"
    return f"{100 * cost['sampler_share']:.1f} %", statistics
