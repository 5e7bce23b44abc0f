"""What distinguishes one model family from another, as a value: everything the loader and the adapter have to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from attn_sampler.errors import CheckpointError

__all__ = ["Family", "Match", "Piece", "lm_head", "number", "require", "same_name", "stock_settings"]

Match = Literal["yes", "maybe", "no"]
"""Whether a config.json belongs to a family; ``"maybe"`` where the file cannot tell and the caller has to."""


@dataclass(frozen=True)
class Piece:
    """Where a tensor on disk, or some of its rows, goes.

    Attributes:
        target: name in the stock class.
        into: index into the target; empty for all of it.
        rows: bounds of the rows taken; None for all of them.
    """

    target: str
    into: tuple[int | slice, ...] = ()
    rows: tuple[int, int] | None = None


def lm_head(net: Any, hidden: Any) -> Any:
    return net.lm_head(hidden)


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: as in ``load(family=)``.
        checkpoints: the published ones.
        source: paper or repository.
        stock: the transformers class that runs it, or model_type → class.
        shifted: row i of the network predicts token i + 1 (a position without a left neighbour cannot be written).
        block_length: of the block-causal mask, counted from position 0; None for full attention.
        counted_positions: padding takes no rotary positions (Dream); else positions are simply 0, 1, 2 ...
        mask_token: the mask's string in the tokenizer.
        mask_id: of the published checkpoints, for those that name it nowhere.
        ends: strings that end an answer beside the end-of-sequence token, and their ids in the published checkpoints
            (used where there is no tokenizer).
        slow_tokenizer: the transformers class that reads vocab.json and merges.txt, where there is no tokenizer.json.
        chat_options: variables of the chat template that its authors set.
        settings: recommended `SamplingParams`, as its authors decode.
        head: (network, hidden states) → logits.
        matches: config.json → `Match`.
        settings_of: config.json → keyword arguments of the stock config.
        pieces: (name on disk, stock config) → where the tensor goes, None if it is not of this family.
    """

    name: str
    checkpoints: str
    source: str
    stock: str | Mapping[str, str]
    matches: Callable[[Mapping[str, Any]], Match]
    settings_of: Callable[[Mapping[str, Any]], dict[str, Any]]
    pieces: Callable[[str, Any], tuple[Piece, ...] | None]
    shifted: bool = False
    block_length: int | None = None
    counted_positions: bool = False
    mask_token: str | None = None
    mask_id: int | None = None
    ends: Mapping[str, int | None] = field(default_factory=dict)
    slow_tokenizer: str = "Qwen2Tokenizer"
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: Callable[[Any, Any], Any] = lm_head

    @property
    def attention(self) -> str:
        return "full" if self.block_length is None else f"block-causal {self.block_length}"


def same_name(name: str, config: Any) -> tuple[Piece, ...]:
    """The stock class has the names that are on disk."""
    return (Piece(name),)


def number(raw: Mapping[str, Any], key: str, default: float | None = None, *, integer: bool = True) -> Any:
    """A positive number of config.json."""
    value = raw.get(key)
    if value is None:
        value = default
    if value is None:
        require(raw, key)
    if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)) or value <= 0:
        raise CheckpointError(f"config.json: {key}={value!r}; it must be a positive {'integer' if integer else 'number'}")
    return value


def require(raw: Mapping[str, Any], *keys: str) -> None:
    missing = [key for key in keys if raw.get(key) is None]
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}")


def stock_settings(raw: Mapping[str, Any], *, head_dim: bool = False) -> dict[str, Any]:
    """Keyword arguments shared by the Qwen-shaped configs, whose keys on disk are the stock ones."""
    require(raw, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    heads, hidden = number(raw, "num_attention_heads"), number(raw, "hidden_size")
    kv_heads = number(raw, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise CheckpointError(f"config.json: num_key_value_heads={kv_heads} does not divide num_attention_heads={heads}")
    if not head_dim and hidden % heads:
        raise CheckpointError(f"config.json: num_attention_heads={heads} does not divide hidden_size={hidden}")
    if raw.get("use_sliding_window"):
        raise CheckpointError("config.json: use_sliding_window=true is not supported; no published checkpoint has it")
    scaling = raw.get("rope_scaling")
    if scaling:
        raise CheckpointError(f"config.json: rope_scaling={scaling!r} is not supported; no published checkpoint has it")
    theta = {"rope_theta": (raw.get("rope_parameters") or {}).get("rope_theta", raw.get("rope_theta"))}
    settings = {
        "vocab_size": number(raw, "vocab_size"),
        "hidden_size": hidden,
        "num_hidden_layers": number(raw, "num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": raw.get("hidden_act", "silu"),
        "max_position_embeddings": number(raw, "max_position_embeddings"),
        "rms_norm_eps": number(raw, "rms_norm_eps", 1e-6, integer=False),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(number(theta, "rope_theta", integer=False))},
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings", False)),
    }
    if head_dim:
        settings["head_dim"] = number(raw, "head_dim", hidden // heads)
    return settings
