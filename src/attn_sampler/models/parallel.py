"""Tensor parallelism: the stock class' own plan over the processes of ``torchrun``.

Every process runs the same engine on the same rows, with a share of the attention heads and of the feed-forward network.
Logits are whole in each of them, random numbers are addressed, so all take the same decisions without talking about them.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from attn_sampler.errors import InvalidInputError

__all__ = ["shard"]


def shard(net: Any, tp_plan: str, device: torch.device) -> Any:
    """Cut the network's weights over all processes; the process group over which its heads are spread.

    Raises:
        InvalidInputError: another plan than ``"auto"``, not started by torchrun, no plan for this class, or heads that do not
            divide.
    """
    if tp_plan != "auto":
        raise InvalidInputError("tp_plan", tp_plan, 'give "auto": the plan of the stock transformers class')
    if not torch.distributed.is_initialized() and "WORLD_SIZE" not in os.environ:
        raise InvalidInputError("tp_plan", tp_plan, "start the program with torchrun --nproc-per-node N")
    from torch.distributed.device_mesh import init_device_mesh
    from transformers.distributed.configuration_utils import DistributedConfig
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    size = torch.distributed.get_world_size() if torch.distributed.is_initialized() else int(os.environ["WORLD_SIZE"])
    heads, kv_heads = net.config.num_attention_heads, getattr(net.config, "num_key_value_heads", None)
    if kv_heads is None or not net.supports_tp_plan:
        raise InvalidInputError("tp_plan", tp_plan, f"{type(net).__name__} has no plan; run it in one process")
    if heads % size or kv_heads % size:
        raise InvalidInputError("tp_plan", tp_plan, f"{size} processes do not divide {heads} heads and {kv_heads} key heads")
    mesh = init_device_mesh(device.type, (size,), mesh_dim_names=("tp",))
    if size > 1:
        plan, _, _ = net._resolve_parallel_plans(DistributedConfig(tp_size=size))
        apply_tensor_parallelism(net, mesh, plan)
    return mesh.get_group()
