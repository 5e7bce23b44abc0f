"""Names and shapes of the tensors of every family as they lie on disk, in tiny sizes."""

from __future__ import annotations

__all__ = [
    "CONTEXT", "HEADS", "KV_HEADS", "LAYERS", "VOCAB", "bert_shapes", "distilbert_shapes", "llada2_shapes",
    "llada_moe_shapes", "llada_shapes", "modernbert_shapes", "qwen_shapes", "roberta_shapes",
]  # fmt: skip

VOCAB, LAYERS, HEADS, KV_HEADS, CONTEXT = 288, 3, 4, 2, 512


def _attention(stem: str, hidden: int, head: int, *, bias: bool = False, norm: bool = False) -> dict[str, tuple[int, ...]]:
    rows = {"q_proj": HEADS * head, "k_proj": KV_HEADS * head, "v_proj": KV_HEADS * head}
    found: dict[str, tuple[int, ...]] = {f"{stem}.{name}.weight": (n, hidden) for name, n in rows.items()}
    found[f"{stem}.o_proj.weight"] = (hidden, HEADS * head)
    found |= {f"{stem}.{name}.bias": (n,) for name, n in rows.items() if bias}
    return found | {f"{stem}.{name}.weight": (head,) for name in ("q_norm", "k_norm") if norm}


def _mlp(stem: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{stem}.gate_proj.weight": (inner, hidden),
        f"{stem}.up_proj.weight": (inner, hidden),
        f"{stem}.down_proj.weight": (hidden, inner),
    }


def _ends(stem: str, hidden: int) -> dict[str, tuple[int, ...]]:
    return {f"{stem}.input_layernorm.weight": (hidden,), f"{stem}.post_attention_layernorm.weight": (hidden,)}


def qwen_shapes(hidden: int, head: int, inner: int, *, tied: bool, **attention: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, hidden), "model.norm.weight": (hidden,)}
    shapes |= {} if tied else {"lm_head.weight": (VOCAB, hidden)}
    for i in range(LAYERS):
        stem = f"model.layers.{i}"
        shapes |= _ends(stem, hidden) | _attention(f"{stem}.self_attn", hidden, head, **attention)
        shapes |= _mlp(f"{stem}.mlp", hidden, inner)
    return shapes


def llada_shapes(hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    few = KV_HEADS * hidden // HEADS
    block = {
        "attn_norm": (hidden,), "ff_norm": (hidden,), "q_proj": (hidden, hidden), "k_proj": (few, hidden),
        "v_proj": (few, hidden), "attn_out": (hidden, hidden), "ff_proj": (inner, hidden), "up_proj": (inner, hidden),
        "ff_out": (hidden, inner),
    }  # fmt: skip
    whole = {"wte": (VOCAB, hidden), "ln_f": (hidden,), "ff_out": (VOCAB, hidden)}
    shapes: dict[str, tuple[int, ...]] = {f"model.transformer.{name}.weight": shape for name, shape in whole.items()}
    for i in range(LAYERS):
        shapes |= {f"model.transformer.blocks.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def llada_moe_shapes(hidden: int, inner: int, experts: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, hidden), "model.norm.weight": (hidden,)}
    shapes["lm_head.weight"] = (VOCAB, hidden)
    for i in range(layers):
        stem = f"model.layers.{i}"
        shapes |= _ends(stem, hidden) | _attention(f"{stem}.self_attn", hidden, hidden // HEADS, norm=True)
        shapes[f"{stem}.mlp.gate.weight"] = (experts, hidden)
        for e in range(experts):
            shapes |= _mlp(f"{stem}.mlp.experts.{e}", hidden, inner)
    return shapes


def llada2_shapes(hidden: int, head: int, dense: int, inner: int, experts: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.word_embeddings.weight": (VOCAB, hidden), "model.norm.weight": (hidden,)}
    shapes["lm_head.weight"] = (VOCAB, hidden)
    for i in range(LAYERS):
        stem = f"model.layers.{i}"
        shapes |= _ends(stem, hidden) | {
            f"{stem}.attention.query_key_value.weight": ((HEADS + 2 * KV_HEADS) * head, hidden),
            f"{stem}.attention.dense.weight": (hidden, HEADS * head),
            f"{stem}.attention.query_layernorm.weight": (head,),
            f"{stem}.attention.key_layernorm.weight": (head,),
        }
        if i == 0:
            shapes |= _mlp(f"{stem}.mlp", hidden, dense)
            continue
        shapes |= {f"{stem}.mlp.gate.weight": (experts, hidden), f"{stem}.mlp.gate.expert_bias": (experts,)}
        for part in (*(f"experts.{e}" for e in range(experts)), "shared_experts"):
            shapes |= _mlp(f"{stem}.mlp.{part}", hidden, inner)
    return shapes


def _both(stem: str, out: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{stem}.weight": (out, inner), f"{stem}.bias": (out,)}


def _layer_norm(stem: str, hidden: int, names: tuple[str, str] = ("weight", "bias")) -> dict[str, tuple[int, ...]]:
    return {f"{stem}.{name}": (hidden,) for name in names}


def _bert_body(
    model: str, hidden: int, inner: int, context: int, types: int, names: tuple[str, str]
) -> dict[str, tuple[int, ...]]:
    tables = {"word_embeddings": VOCAB, "position_embeddings": context, "token_type_embeddings": types}
    shapes: dict[str, tuple[int, ...]] = {f"{model}.embeddings.{name}.weight": (n, hidden) for name, n in tables.items()}
    shapes |= _layer_norm(f"{model}.embeddings.LayerNorm", hidden, names)
    for i in range(LAYERS):
        stem = f"{model}.encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _both(f"{stem}.attention.{part}", hidden, hidden)
        shapes |= _layer_norm(f"{stem}.attention.output.LayerNorm", hidden, names)
        shapes |= _both(f"{stem}.intermediate.dense", inner, hidden) | _both(f"{stem}.output.dense", hidden, inner)
        shapes |= _layer_norm(f"{stem}.output.LayerNorm", hidden, names)
    return shapes | _both(f"{model}.pooler.dense", hidden, hidden)


def bert_shapes(hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Norms named as TensorFlow did, with the next-sentence head beside the one for masks."""
    names = ("gamma", "beta")
    shapes = _bert_body("bert", hidden, inner, CONTEXT, 2, names) | _both("cls.seq_relationship", 2, hidden)
    shapes |= _both("cls.predictions.transform.dense", hidden, hidden)
    shapes |= _layer_norm("cls.predictions.transform.LayerNorm", hidden, names)
    return shapes | {"cls.predictions.bias": (VOCAB,)}


def roberta_shapes(hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    """With a table of position ids, which older versions of transformers stored."""
    shapes = _bert_body("roberta", hidden, inner, CONTEXT + 2, 1, ("weight", "bias")) | _both("lm_head.dense", hidden, hidden)
    shapes |= _layer_norm("lm_head.layer_norm", hidden) | {"lm_head.bias": (VOCAB,)}
    return shapes | {"roberta.embeddings.position_ids": (1, CONTEXT + 2)}


def distilbert_shapes(hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    stem = "distilbert.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{stem}.word_embeddings.weight": (VOCAB, hidden),
        f"{stem}.position_embeddings.weight": (CONTEXT, hidden),
    } | _layer_norm(f"{stem}.LayerNorm", hidden)
    for i in range(LAYERS):
        stem = f"distilbert.transformer.layer.{i}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= _both(f"{stem}.attention.{part}", hidden, hidden)
        shapes |= _layer_norm(f"{stem}.sa_layer_norm", hidden) | _layer_norm(f"{stem}.output_layer_norm", hidden)
        shapes |= _both(f"{stem}.ffn.lin1", inner, hidden) | _both(f"{stem}.ffn.lin2", hidden, inner)
    shapes |= _both("vocab_transform", hidden, hidden) | _layer_norm("vocab_layer_norm", hidden)
    return shapes | {"vocab_projector.bias": (VOCAB,)}


def modernbert_shapes(hidden: int, inner: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embeddings.tok_embeddings.weight": (VOCAB, hidden),
        "model.embeddings.norm.weight": (hidden,),
        "model.final_norm.weight": (hidden,),
        "head.dense.weight": (hidden, hidden),
        "head.norm.weight": (hidden,),
        "decoder.bias": (VOCAB,),
    }
    for i in range(layers):
        stem = f"model.layers.{i}"
        shapes |= {f"{stem}.attn_norm.weight": (hidden,)} if i else {}  # the embeddings are normalised already
        shapes |= {f"{stem}.attn.Wqkv.weight": (3 * hidden, hidden), f"{stem}.attn.Wo.weight": (hidden, hidden)}
        shapes |= {f"{stem}.mlp_norm.weight": (hidden,), f"{stem}.mlp.Wi.weight": (2 * inner, hidden)}
        shapes[f"{stem}.mlp.Wo.weight"] = (hidden, inner)
    return shapes
