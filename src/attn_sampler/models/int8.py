"""Weight-only int8, by torchao: every linear layer but the head keeps its weights as int8, a scale per output channel.

Weights are rounded to 256 levels per output channel after loading and turned back into the data type of the activations inside
each product; activations are not rounded. Head and embedding stay as they are: the head's logits are what tokens, confidences and
orders are read from, several families share it with the embedding, and an embedding is looked up, not multiplied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attn_sampler.errors import InvalidInputError, MissingDependencyError, check_choice

__all__ = ["QUANTIZE", "check_quantize", "to_int8"]

QUANTIZE = ("int8",)


def check_quantize(quantize: object, place: object) -> None:
    """Before the weights are read: raise unless ``quantize`` is None or one of `QUANTIZE` and can be done.

    Args:
        place: a torch.device, or a device map.
    """
    if quantize is None:
        return
    check_choice("quantize", quantize, QUANTIZE)
    if not isinstance(place, torch.device):
        raise InvalidInputError("quantize", quantize, "give one device: layers that a device map moves about are not quantised")
    _library()


def to_int8(net: Any) -> Any:
    """The network with its linear layers in int8, in place.

    Raises:
        InvalidInputError: most of its weights are in no linear layer (fused experts).
    """
    library = _library()
    if any(parameter.ndim == 3 for parameter in net.parameters()):
        remedy = "the experts of this model are fused tensors, which would stay as they are: load it without"
        raise InvalidInputError("quantize", "int8", remedy)
    head = net.get_output_embeddings()
    # set_inductor_config would change settings of torch.compile for the whole process
    library.quantize_(
        net,
        library.Int8WeightOnlyConfig(set_inductor_config=False),
        filter_fn=lambda module, _: isinstance(module, nn.Linear) and module is not head,
    )
    return net


def _library() -> Any:
    try:
        import torchao.quantization  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError("torchao", "int8") from error
    return torchao.quantization
