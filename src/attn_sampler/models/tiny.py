"""Tiny random checkpoints of the real on-disk layouts: what loads these loads the published ones, as far as layout goes.

For tests, for trying a sampler or a server without a download, and to see what a family looks like on disk. They have learnt
nothing: the text is noise.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attn_sampler.errors import InvalidInputError, UnknownNameError, check_number
from attn_sampler.models.layout_tokens import Vocabulary
from attn_sampler.models.layouts import LAYOUTS, Layout
from attn_sampler.rng import uniform

__all__ = ["LAYOUTS", "write"]

SHARDS = 2


def write(family: str, folder: Path, *, seed: int = 0) -> None:
    """Write a checkpoint directory; the same seed gives the same bytes.

    It holds config.json with every key that the family's published configs have, generation_config.json (but for the encoders,
    which have none), two safetensors shards with their index, and a tokenizer with the family's special tokens and chat
    format over single bytes (single characters for BERT and DistilBERT). Sizes: 288 tokens, 2 to 4 layers, width 48 or 64,
    4 heads and 2 key/value heads where the layout has them, 512 positions, float32; 0.4 to 0.7 MB.

    Args:
        family: a key of `LAYOUTS`: the names of `attn_sampler.models.FAMILIES`, some with an ending for a second layout
            (``a2d-mdlm-qwen2``, ``fast-dllm-v2-tied`` …). Load it with ``family=LAYOUTS[family].family`` where the config does
            not tell its family (``a2d-*`` and ``open-dcoder``).
        folder: is made; may exist if it is empty.
        seed: of the weights.

    Weights are drawn so that a sampler has something to decide: the head is wide (standard deviation 6/√width, 4/√width where
    the embedding is the head) and its mask row zero, so that the highest probabilities spread over 0 to 1; queries and keys
    are wide enough that masked positions differ.

    Raises:
        UnknownNameError: no such layout.
        InvalidInputError: the directory holds something, or cannot be made; the seed is no integer ≥ 0.
    """
    if family not in LAYOUTS:
        raise UnknownNameError("family", str(family), LAYOUTS)
    check_number("seed", seed, low=0, integer=True)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError("folder", str(folder), "it is no empty directory; give a new one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError("folder", str(folder), f"cannot be made ({error.strerror})") from error
    layout = LAYOUTS[family]
    _write_json(folder / "config.json", layout.config)
    if layout.generation is not None:
        _write_json(folder / "generation_config.json", layout.generation)
    _write_weights(layout, folder, seed)
    _write_tokenizer(layout.words, folder)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_weights(layout: Layout, folder: Path, seed: int) -> None:
    from safetensors.torch import save_file

    weights = {name: _draw(layout, name, shape, seed) for name, shape in sorted(layout.shapes.items())}
    files = [f"model-{i + 1:05}-of-{SHARDS:05}.safetensors" for i in range(SHARDS)]
    total, filled = sum(w.nbytes for w in weights.values()), 0
    where: dict[str, str] = {}
    for name, weight in weights.items():
        where[name] = files[min(SHARDS * filled // total, SHARDS - 1)]
        filled += weight.nbytes
    for file in files:
        save_file({n: w for n, w in weights.items() if where[n] == file}, folder / file, metadata={"format": "pt"})
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


_EMBEDDING = re.compile(r"(wte|embed_tokens|word_embeddings|tok_embeddings|token_type_embeddings)\.weight$")
_HEAD = re.compile(r"(^lm_head|^model\.transformer\.ff_out)\.weight$")
_NORM = re.compile(r"(norm|ln_f|layernorm|LayerNorm)\.(weight|gamma)$")
_QK_NORM = re.compile(r"(q_norm|k_norm|query_layernorm|key_layernorm)\.weight$")
# standard deviation times √(size of the input), first match
_WIDTHS = (
    (re.compile(r"(q_proj|k_proj|query_key_value|Wqkv|q_lin|k_lin|self\.query|self\.key)\.weight$"), 2.1),
    (
        re.compile(r"(v_proj|o_proj|attn_out|attention\.dense|attn\.Wo|v_lin|out_lin|self\.value|attention\.output\.dense)\.w"),
        1.6,
    ),
    (re.compile(r"mlp\.gate\.weight$"), 1.6),
    (re.compile(r"\.weight$"), 1.1),
)


def _draw(layout: Layout, name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if name.endswith("position_ids"):
        return torch.arange(shape[1])[None]
    address = (torch.tensor([seed]), torch.tensor([zlib.crc32(name.encode())]), torch.arange(math.prod(shape))[None])
    noise = torch.special.ndtri(uniform(*address, 0)).float().view(shape)
    if _QK_NORM.search(name):
        return 1.7 + 0.25 * noise
    if _NORM.search(name):
        return 1.0 + 0.1 * noise
    if name.endswith("expert_bias"):
        return 0.05 * noise
    if len(shape) == 1:
        return 0.3 * noise if re.search(r"(q|k|v)_proj", name) else 0.1 * noise
    if _HEAD.search(name):
        weight = noise * 6.0 / math.sqrt(shape[1])
        weight[layout.words[layout.mask]] = 0.0
        return weight
    if _EMBEDDING.search(name):
        return noise * (4.0 / math.sqrt(shape[1]) if layout.tied else 0.3)
    if name.endswith("position_embeddings.weight"):  # all that tells one mask from another before the first layer
        return noise * 8.0 / math.sqrt(shape[1])
    width = next(width for pattern, width in _WIDTHS if pattern.search(name))
    return noise * width / math.sqrt(shape[1])


def _write_tokenizer(words: Vocabulary, folder: Path) -> None:
    tok = _tokenizer(words)
    special = [*words.before, *words.after]
    if words.files == "slow":
        tok.model.save(str(folder))
    else:
        tok.save(str(folder / "tokenizer.json"))
    ids = {token: tok.token_to_id(token) for token in special if not token.startswith("[unused")}
    settings = {
        "added_tokens_decoder": {str(i): {"content": token, "special": True} for token, i in ids.items()},
        "additional_special_tokens": [token for token in ids if token not in words.roles.values()],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "tokenizer_class": words.tokenizer_class,
        **words.roles,
    }
    _write_json(folder / "tokenizer_config.json", settings | ({} if words.chat is None else {"chat_template": words.chat}))


def _tokenizer(words: Vocabulary) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if words.pieces:
        marks = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
        letters = "0123456789abcdefghijklmnopqrstuvwxyz"
        pieces = [*marks, *letters, *(f"##{letter}" for letter in letters)]
        vocab = {piece: i for i, piece in enumerate([*words.before, *pieces])}
        tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        tok.normalizer = normalizers.BertNormalizer(lowercase=True)
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    else:
        bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
        tok = Tokenizer(models.BPE({piece: i for i, piece in enumerate([*words.before, *bytes_])}, []))
        tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tok.add_special_tokens([*words.before, *words.after])
    if words.frame is not None:
        first, last = words.frame
        pairs = [(token, tok.token_to_id(token)) for token in words.frame]
        tok.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=pairs)
    return tok
