"""Stand-ins for a network and a tokenizer whose answers can be looked up by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attn_sampler.attention import AttentionAsk
from attn_sampler.models.seam import Ask, Prediction

Network = Callable[[Tensor, int], Tensor]
"""(ids, forwards so far) → logits of the whole canvas, (rows, length, vocab)."""


class TableModel:
    """A `Model` that reads its logits from a table.

    Args:
        table: logits of every position, (length, vocab), or a function of the canvas and the number of the forward pass.
        moving: rotate a row's table by a checksum of its ids, so that every commit changes what comes next. The checksum leaves
            padding out, so a row sees the same numbers alone and in any batch, exactly.
        attention: unnormalised attention logits, (length, length), row = query; rotated likewise.
        unseen: what a position's prediction is without attention to the token standing there; a table or a function likewise,
            None for the first one.
    """

    def __init__(
        self,
        table: Tensor | Network,
        *,
        mask_id: int,
        eos_ids: tuple[int, ...] = (),
        vocab_size: int | None = None,
        context_length: int = 512,
        moving: bool = False,
        attention: Tensor | None = None,
        num_layers: int = 2,
        num_heads: int = 2,
        unseen: Tensor | Network | None = None,
    ) -> None:
        self.table, self.moving, self.attention = table, moving, attention
        self.mask_id, self.eos_ids, self.pad_id = mask_id, eos_ids, 0
        self.vocab_size = vocab_size or table.shape[-1]  # type: ignore[union-attr]
        self.context_length = context_length
        self.num_layers, self.num_heads = (num_layers, num_heads) if attention is not None else (0, 0)
        self.device = torch.device("cpu")
        self.block_length, self.shift, self.caches = None, 0, False
        self.unseen, self.shadows = table if unseen is None else unseen, True
        self.forwards = 0
        self.lengths: list[tuple[int, int]] = []  # (rows, length) of every forward pass

    def logits(self, ids: Tensor, valid: Tensor | None) -> Tensor:
        return self._looked_up(self.table, ids, valid)

    def _looked_up(self, table: Tensor | Network, ids: Tensor, valid: Tensor | None) -> Tensor:
        if callable(table):
            return table(ids, self.forwards)
        return table[(torch.arange(ids.shape[1]) + self._turn(ids, valid)[:, None]) % len(table)]

    def _turn(self, ids: Tensor, valid: Tensor | None) -> Tensor:
        if not self.moving:
            return torch.zeros(len(ids), dtype=torch.long)
        terms = (ids + 1) * (torch.arange(ids.shape[1]) * 7 + 3)
        return (terms if valid is None else terms.masked_fill(~valid, 0)).sum(1)

    def predict(self, ids: Tensor, valid: Tensor | None, asks: Sequence[Ask]) -> list[Prediction]:
        logits = self.logits(ids, valid)
        unseen = self._looked_up(self.unseen, ids, valid) if any(ask.unseen is not None for ask in asks) else None
        real = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
        turn = self._turn(ids, valid)
        self.forwards += 1
        self.lengths.append((ids.shape[0], ids.shape[1]))
        out = []
        for ask in asks:
            place = (ask.rows[:, None], ask.positions)
            statistics = {} if ask.attention is None else self._statistics(ask.attention, turn, real)
            if ask.unseen is not None:
                assert unseen is not None
                statistics["unseen"] = unseen[place]
            out.append(Prediction(logits[place], **statistics))
        return out

    def _statistics(self, ask: AttentionAsk, turn: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Column sums and the rest by the definition, one row at a time."""
        assert self.attention is not None, "this fake was given no attention"
        size, everywhere = len(self.attention), torch.arange(valid.shape[1])
        found: dict[str, list[Tensor]] = {"columns": [], "pairwise": [], "sinks": [], "known_mass": []}
        for k, row in enumerate(ask.rows.tolist()):
            keys, queries, real = ask.keys[k], ask.queries[k], ask.real[k]
            logits = self.attention[(everywhere + turn[row])[:, None] % size, (everywhere + turn[row]) % size]
            seen = torch.isin(everywhere, keys[real]) if ask.statistics.norm == "local" else valid[row]
            whole = logits.masked_fill(~seen, -torch.inf).softmax(-1)
            matrix = whole[queries][:, keys] * real
            matrix = matrix if ask.statistics.diag else matrix * (queries[:, None] != keys)
            found["columns"].append((matrix * ask.counted[k, :, None]).sum(0))
            if ask.statistics.pairwise:
                found["pairwise"].append(matrix)
            if ask.everyone is not None:
                found["sinks"].append(whole[ask.everyone[k]].mean(0)[keys] * real)
            if ask.known is not None:
                found["known_mass"].append((whole[queries] * ask.known[k]).sum(1))
        return {name: torch.stack(values) for name, values in found.items() if values}


def one_hot(tokens: Sequence[int], vocab: int, strength: float = 1e4) -> Tensor:
    """A table that is certain: position i holds ``tokens[i]`` with probability 1."""
    table = torch.zeros(len(tokens), vocab)
    table[torch.arange(len(tokens)), torch.tensor(tokens)] = strength
    return table


def random_table(seed: int, length: int, vocab: int, spread: float = 4.0) -> Tensor:
    return torch.randn(length, vocab, generator=torch.Generator().manual_seed(seed)) * spread


class Tokenizer:
    """Characters as tokens: id = place in the alphabet. ``specials`` have ids after it and decode to nothing."""

    chat_template: str | None = None

    def __init__(self, alphabet: str, specials: Sequence[str] = ()) -> None:
        self.alphabet, self.specials = alphabet, tuple(specials)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [self.alphabet.index(c) for c in text]

    def decode(self, ids: list[int], skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False) -> str:
        return "".join(self.alphabet[i] if i < len(self.alphabet) else "" for i in ids)


class ByteTokenizer(Tokenizer):
    """Bytes as tokens, so that a character may take several of them."""

    def __init__(self) -> None:
        super().__init__("")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int], skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class ChatTokenizer(Tokenizer):
    """Wraps every message as ``<content>``."""

    chat_template = "given"

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool, tokenize: bool) -> str:
        assert add_generation_prompt
        assert not tokenize
        return "".join(f"<{message['content']}>" for message in messages)
