"""Tensor parallelism on two processes equals one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import attn_sampler as ats
from attn_sampler import InvalidInputError, SamplingParams

MODELS = Path(__file__).parent / "golden" / "models"
SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "attention", "threshold": 0.6},
    {"sampler": "attention", "threshold": 0.6, "norm": "global", "heads": (0, 3), "rows": "block"},
    {"sampler": "attention-sequential", "norm": "global"},
    {"sampler": "fast-dllm", "threshold": 0.6},
]
PROMPTS = [[5, 9, 33, 71], [(11 * i) % 250 for i in range(40)]]


def run(model: str, tp_plan: str | None) -> dict[str, Any]:
    engine = ats.load(MODELS / model, device="cpu", mask_id=283, tp_plan=tp_plan)
    out: dict[str, Any] = {"logits": engine.logits([PROMPTS[1]]).tolist(), "ids": [], "scores": []}
    for options in SAMPLERS:
        seen: list[Any] = []
        params = SamplingParams(max_new_tokens=16, ignore_eos=True, seed=0, **options)
        results = engine.generate(PROMPTS, params, on_step=seen.append)
        out["ids"].append([r.token_ids for r in results])
        out["scores"].append([step.scores for step in seen])
    return out


@pytest.mark.parametrize("model", ["llada_gqa", "dream", "sdar"])
def test_two_processes_equal_one(model: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        command = [sys.executable, __file__, model, str(tmp_path / f"{rank}.json")]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    one, first, second = run(model, None), *(json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second, "all processes take the same decisions"
    assert first["ids"] == one["ids"]
    difference = (torch.tensor(first["logits"]) - torch.tensor(one["logits"])).abs().max()
    assert difference <= 1e-4
    for ours, theirs in zip(first["scores"], one["scores"], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tp_plan": "auto"}, "torchrun"),
        ({"tp_plan": "mine"}, '"auto"'),
        ({"tp_plan": "auto", "device": None, "device_map": {"": "cpu"}}, "device_map"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ats.load(MODELS / "llada_gqa", **({"device": "cpu"} | arguments))
    assert caught.value.field == "tp_plan"
    assert says in str(caught.value)


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[2]).write_text(json.dumps(run(sys.argv[1], "auto")))
    torch.distributed.destroy_process_group()
