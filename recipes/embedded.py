"""How the embedded model was made: tokenizer, data, training, export. One command, resumable at any moment.

    python recipes/embedded.py --out runs/embedded

Everything is drawn from fixed seeds; batch number ``i`` is a function of (seed, i) alone, so a run that was killed and
started again sees the same batches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from attn_sampler.evals.tasks import (
    RANGES,
    Ranges,
    final_number,
    is_held_out,
    sudoku_grids,
    sudoku_problem,
    sudoku_solved,
    sum_problem,
    word_problem,
    word_problems,
)

HERE = Path(__file__).parent
SEED = 2026
# (first step, share of the learning rate there and at the phase's end). What was learnt on the way decided them, see docs/log.md.
PHASES = (
    (0, 1.0, 1.0),
    (4400, 1.0, 5 / 6),
    (5500, 0.35, 0.3306),
    (5750, 0.3306, 0.1102),
    (7250, 0.1102, 0.0694),
    (7750, 0.11, 0.0),
    (9100, 0.0, 0.2),
    (9300, 0.2, 0.0),
)
SHARES = ((9100, (6, 6)), (7750, (3, 9)), (5500, (4, 8)), (0, (6, 6)))  # first step, (Sudokus, word problems) in sixths
LAST = 5500  # from here on: smaller numbers, more word problems, whole suffixes masked
AGAIN = 9100  # here the optimisers start anew, and from here on a third of the Sudokus are the hardest there are
WIDE = Ranges(start=12, change=9, factor=5, value=20)  # of the word problems before the last phases
DRILLS = 0.2  # the share of bare sums among the word problems: short, and all about the result
CANVAS = {24: 0.8, 32: 0.1, 48: 0.04, 64: 0.04, 96: 0.02}  # lengths of the answer's canvas, and how often each is drawn
SPECIAL = ["<|eos|>", "<|mask|>", "<|user|>", "<|assistant|>"]
EOS, MASK, USER, ASSISTANT = range(4)
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|eos|>"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONFIG = {
    "architectures": ["LLaDAModelLM"], "model_type": "llada",
    "d_model": 128, "n_layers": 6, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 384, "mlp_ratio": 3,
    "activation_type": "silu", "block_type": "llama", "block_group_size": 1, "layer_norm_type": "rms",
    "rms_norm_eps": 1e-5, "rope": True, "rope_theta": 10000.0, "rope_full_precision": True, "alibi": False,
    "max_sequence_length": 512, "weight_tying": False, "include_bias": False, "include_qkv_bias": False,
    "bias_for_layer_norm": False, "attention_layer_norm": False, "input_emb_norm": False, "scale_logits": False,
    "flash_attention": False, "mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": EOS, "use_cache": False,
}  # fmt: skip


# --- tokenizer ------------------------------------------------------------------------------------------------------


def make_tokenizer(vocab_size: int = 640) -> Tokenizer:
    """Byte-level BPE: words and the numbers 0..99 become one token each, longer digit runs one token per digit.

    A space before a digit belongs to the word or sign in front of it, so that a number is the same token wherever it stands.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    pattern = r"(?<!\d)\d{1,2}(?!\d)|\d| ?\p{L}+(?: (?=\d))?| ?[^\s\p{L}\d]+(?: (?=\d))?|\s"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(SEED)
    corpus = ["\n".join(f"{n} {n}" for n in range(100))] * 5000
    for _ in range(20000):
        problem = word_problem(rng, rng.randint(1, 3), WIDE)
        corpus += [problem.prompt, problem.answer]
    corpus += [sudoku_problem(rng, 8).prompt for _ in range(2000)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False, min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


# --- data -----------------------------------------------------------------------------------------------------------


class Data:
    """Batches of (ids, answer_start): the prompt, the answer, and end-of-sequence up to a drawn length."""

    def __init__(self, tokenizer: Tokenizer, words_per_pool: int = 4096) -> None:
        self.tokenizer, self.words_per_pool = tokenizer, words_per_pool
        one = {c: tokenizer.encode(f"Sudoku:\n{c}").ids[-1] for c in "01234"}
        self.digit = np.array([one[c] for c in "01234"])
        self.newline = tokenizer.encode("\n").ids[0]
        self.head = np.array([USER, *tokenizer.encode("Sudoku:\n").ids])
        self.grids = np.array([[int(c) for c in g] for g in sudoku_grids()])
        self.excluded = set((HERE / "heldout_sudoku.txt").read_text().split())
        self.hardest = self._hardest()
        self.pool: tuple[int, list[tuple[list[int], list[int]]]] = (-1, [])

    def _lay_out(self, cells: np.ndarray) -> np.ndarray:
        ids = self.digit[cells]
        out = np.full((len(cells), 19), self.newline)
        out[:, [i + i // 4 for i in range(16)]] = ids
        return out

    def _hardest(self) -> tuple[np.ndarray, np.ndarray]:
        """All puzzles of four clues with one solution, and their solutions: drawn cells hardly ever give one."""
        masks = np.array([np.isin(range(16), cells) for cells in combinations(range(16), 4)])
        puzzles, solutions = [], []
        for grid in self.grids:
            unique = (masks @ (self.grids != grid).T.astype(int) == 0).sum(1) == 1  # only the grid itself fits the clues
            puzzles.append(np.where(masks[unique], grid, 0))
            solutions.append(np.broadcast_to(grid, puzzles[-1].shape))
        every, solved = np.concatenate(puzzles), np.concatenate(solutions)
        allowed = np.array([self._allowed(p) for p in every])
        return every[allowed], solved[allowed]

    def sudoku(self, rng: np.random.Generator, n: int, canvas: int, hardest: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Half the puzzles have one solution only; low numbers of clues are drawn more often.

        Args:
            hardest: puzzles among the ``n`` that are of four clues and have one solution.
        """
        puzzles, grids = self._mixed(rng, n - hardest)
        if hardest:
            pick = rng.integers(0, len(self.hardest[0]), hardest)
            puzzles = np.concatenate([puzzles, self.hardest[0][pick]])
            grids = np.concatenate([grids, self.hardest[1][pick]])
        head = np.broadcast_to(self.head, (n, len(self.head)))
        prompt = np.concatenate([head, self._lay_out(puzzles), np.full((n, 1), ASSISTANT)], 1)
        answer = np.full((n, canvas), EOS)
        answer[:, :19] = self._lay_out(grids)
        ids = torch.from_numpy(np.concatenate([prompt, answer], 1))
        return ids, torch.full((n,), prompt.shape[1])

    def _mixed(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        draw = 8 * n
        grids = self.grids[rng.integers(0, 288, draw)]
        clues = np.minimum(rng.integers(4, 13, draw), rng.integers(4, 13, draw))
        keep = rng.random((draw, 16)).argsort(1).argsort(1) < clues[:, None]
        puzzles = np.where(keep, grids, 0)
        matches = ((puzzles[:, None] == 0) | (puzzles[:, None] == self.grids[None])).all(-1).sum(1)
        allowed = np.array([self._allowed(p) for p in puzzles])
        unique = np.flatnonzero(allowed & (matches == 1))[: n // 2]
        rest = np.flatnonzero(allowed)
        rest = rest[~np.isin(rest, unique)][: n - len(unique)]
        pick = np.concatenate([unique, rest])
        return puzzles[pick], grids[pick]

    def _allowed(self, puzzle: np.ndarray) -> bool:
        cells = "".join(map(str, puzzle))
        prompt = "Sudoku:\n" + "\n".join(cells[i : i + 4] for i in range(0, 16, 4))
        return not is_held_out(prompt) and digest(cells) not in self.excluded

    def words(self, step: int, n: int, canvas: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One batch of similar prompt length out of a pool."""
        per_pool = self.words_per_pool // n
        number, index = divmod(step, per_pool)
        if self.pool[0] != number:
            rng = random.Random(f"{SEED}-{number}")
            problems, first = [], number * per_pool
            ranges = WIDE if first < LAST else RANGES
            easy = 0.15 + 0.6 * max(0.0, 1 - first / 1000)  # the curriculum: one-step problems first
            while len(problems) < per_pool * n:
                if rng.random() < DRILLS:
                    problem = sum_problem(rng, rng.choice((1, 2, 3)), ranges)
                else:
                    problem = word_problem(rng, 1 if rng.random() < easy else rng.choice((2, 3, 3)), ranges)
                if not is_held_out(problem.prompt):
                    problems.append(problem)
            prompts = self.tokenizer.encode_batch([p.prompt for p in problems])
            answers = self.tokenizer.encode_batch([p.answer for p in problems])
            rows = [([USER, *p.ids, ASSISTANT], a.ids) for p, a in zip(prompts, answers, strict=True)]
            rows.sort(key=lambda row: (len(row[0]), rng.random()))
            batches = [rows[i : i + n] for i in range(0, len(rows), n)]
            rng.shuffle(batches)
            self.pool = (number, [row for batch in batches for row in batch])
        rows = self.pool[1][index * n : (index + 1) * n]
        start = torch.tensor([len(p) for p, _ in rows])
        length = int(start.max()) + canvas
        ids = torch.full((n, length), EOS)
        for i, (p, a) in enumerate(rows):
            ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        return ids, start

    def batch(self, step: int, n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng((SEED, step))
        canvas = int(rng.choice(list(CANVAS), p=list(CANVAS.values())))
        puzzles, problems = next(share for first, share in SHARES if step >= first)
        puzzles, problems = puzzles * n // 6, problems * n // 6
        puzzles = puzzles if canvas <= 32 else puzzles * 24 // canvas
        hardest = puzzles // 3 if step >= AGAIN else 0
        return [self.sudoku(rng, puzzles, canvas, hardest), self.words(step, problems, canvas)]


def digest(cells: str) -> str:
    return hashlib.sha256(cells.encode()).hexdigest()[:16]


# --- model: the LLaDA layout, written plainly -----------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self, d: int, ffn: int) -> None:
        super().__init__()
        self.attn_norm, self.ff_norm = nn.RMSNorm(d, eps=1e-5), nn.RMSNorm(d, eps=1e-5)
        self.q_proj, self.k_proj, self.v_proj, self.attn_out = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.ff_proj, self.up_proj = nn.Linear(d, ffn, bias=False), nn.Linear(d, ffn, bias=False)
        self.ff_out = nn.Linear(ffn, d, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int) -> torch.Tensor:
        n, length, d = x.shape
        h = self.attn_norm(x)
        qkv = F.linear(h, torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]))
        q, k, v = qkv.view(n, length, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + self.attn_out(a.transpose(1, 2).reshape(n, length, d))
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Net(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        d, self.heads = CONFIG["d_model"], CONFIG["n_heads"]
        self.wte = nn.Embedding(vocab_size, d)
        self.blocks = nn.ModuleList(Layer(d, CONFIG["mlp_hidden_size"]) for _ in range(CONFIG["n_layers"]))
        self.ln_f = nn.RMSNorm(d, eps=1e-5)
        self.ff_out = nn.Linear(d, vocab_size, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                scale = (
                    0.5 / math.sqrt(2 * CONFIG["n_layers"])
                    if "attn_out" in name or ("blocks" in name and "ff_out" in name)
                    else 1.0
                )
                nn.init.normal_(p, std=(0.05 if "wte" in name else scale / math.sqrt(p.shape[1])))
        nn.init.zeros_(self.ff_out.weight)
        head = d // self.heads
        inv = 1.0 / CONFIG["rope_theta"] ** (torch.arange(0, head, 2) / head)
        angle = torch.outer(torch.arange(CONFIG["max_sequence_length"]).float(), inv)
        angle = torch.cat([angle, angle], -1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.blocks:
            x = layer(x, cos, sin, self.heads)
        return self.ln_f(x)


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates (Newton-Schulz, Jordan et al. 2024) for the matrices of the layers."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"] * 0.2 * math.sqrt(max(p.shape)))


def orthogonal(m: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz steps towards the nearest orthogonal matrix; one at a time, as batched products are slow on a CPU."""
    tall = m.shape[0] > m.shape[1]
    x = (m.T if tall else m).contiguous()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


# --- training -------------------------------------------------------------------------------------------------------


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: linear within each phase."""
    ends = [*(first for first, _, _ in PHASES[1:]), steps]
    first, high, low, end = next((*phase, end) for phase, end in zip(PHASES, ends, strict=True) if step < end)
    return min(1.0, (step + 1) / 100) * (high + (low - high) * (step - first) / (end - first))


def loss_of(
    net: Net, ids: torch.Tensor, start: torch.Tensor, generator: torch.Generator, suffixes: bool = False
) -> tuple[torch.Tensor, int]:
    """Cross-entropy on masked answer tokens; the mask ratio is uniform over (0, 1] per row.

    Args:
        suffixes: mask a whole suffix instead, in every second row: a result is then to be computed from its operands, where
            random masks mostly let it be copied from a later mention.
    """
    n, length = ids.shape
    place = torch.arange(length)
    answer = place >= start[:, None]
    ratio = torch.rand(n, 1, generator=generator).clamp(min=0.02)
    masked = (torch.rand(n, length, generator=generator) < ratio) & answer
    if suffixes:
        written = (ids != EOS).sum(1) - start  # tokens of the answer
        cut = start + (torch.rand(n, generator=generator) * written).long()
        masked[::2] = (place >= cut[:, None])[::2]
    hidden = net(ids.masked_fill(masked, MASK))[masked]
    targets = ids[masked]
    return F.cross_entropy(net.ff_out(hidden), targets, reduction="sum"), len(targets)


@torch.no_grad()
def fill(net: Net, prompts: list[list[int]], canvas: int = 24) -> list[list[int]]:
    """Confidence sampler, one token per forward; prompts are grouped by length so that no padding is needed."""
    out: list[list[int]] = [[] for _ in prompts]
    for length in {len(p) for p in prompts}:
        rows = [i for i, p in enumerate(prompts) if len(p) == length]
        ids = torch.full((len(rows), length + canvas), MASK)
        ids[:, :length] = torch.tensor([prompts[i] for i in rows])
        for _ in range(canvas):
            logits = net.ff_out(net(ids)[:, length:])
            logits[..., MASK] = -torch.inf
            p, token = logits.softmax(-1).max(-1)
            p[ids[:, length:] != MASK] = -1
            best = p.argmax(1)
            r = torch.arange(len(rows))
            ids[r, length + best] = token[r, best]
        for i, row in zip(rows, ids[:, length:].tolist(), strict=True):
            out[i] = row[: row.index(EOS)] if EOS in row else row
    return out


def evaluate(net: Net, tokenizer: Tokenizer, n: int = 90) -> dict[str, float]:
    rng = random.Random(7)
    result = {}
    for clues in (4, 6, 9):
        problems = [sudoku_problem(rng, clues) for _ in range(20 * n)]
        problems = [p for p in problems if is_held_out(p.prompt)][: n // 2]
        outs = fill(net, [[USER, *tokenizer.encode(p.prompt).ids, ASSISTANT] for p in problems])
        ok = [sudoku_solved(p.prompt, tokenizer.decode(o)) for p, o in zip(problems, outs, strict=True)]
        result[f"sudoku_{clues}"] = sum(ok) / len(ok)
    problems = word_problems(n, seed=11)
    outs = fill(net, [[USER, *tokenizer.encode(p.prompt).ids, ASSISTANT] for p in problems])
    for steps in (1, 2, 3):
        ok = [
            final_number(tokenizer.decode(o)) == final_number(p.answer)
            for p, o in zip(problems, outs, strict=True)
            if p.difficulty == steps
        ]
        result[f"word_{steps}"] = sum(ok) / len(ok)
    return {k: round(v, 3) for k, v in result.items()}


def imported(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a directory that ``export`` wrote."""
    return {name.removeprefix("model.transformer."): t for name, t in load_file(folder / "model.safetensors").items()}


def export(net: Net, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the LLaDA on-disk layout: config, weights, tokenizer, chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.transformer.{name}": p.detach().clone().contiguous() for name, p in net.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vocab = tokenizer.get_vocab_size()
    config = CONFIG | {"vocab_size": vocab, "embedding_size": vocab}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": EOS}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eos|>", "pad_token": "<|eos|>",
        "mask_token": "<|mask|>", "additional_special_tokens": ["<|user|>", "<|assistant|>"],
        "clean_up_tokenization_spaces": False, "model_max_length": CONFIG["max_sequence_length"],
        "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"))
    parser.add_argument("--steps", type=int, default=17500)
    parser.add_argument("--batch", type=int, default=48, help="problems of each task in a batch")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--weights", type=Path, help=f"begin at step {AGAIN} with the weights of this directory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eval-every", type=int, default=500)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    args.out.mkdir(parents=True, exist_ok=True)

    tokenizer_file = args.out / "tokenizer.json"
    if not tokenizer_file.exists():
        make_tokenizer().save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    torch.manual_seed(SEED)
    net = Net(tokenizer.get_vocab_size())
    first = 0
    if args.weights:
        net.load_state_dict(imported(args.weights))
        first = AGAIN
    matrices = [p for n, p in net.named_parameters() if n.startswith("blocks") and p.ndim == 2]
    others = [p for n, p in net.named_parameters() if not (n.startswith("blocks") and p.ndim == 2)]
    muon = Muon(matrices, lr=args.lr)
    adam = torch.optim.AdamW(others, lr=args.lr * 0.3, betas=(0.9, 0.98), weight_decay=0.0)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        first = state["step"]
    data = Data(tokenizer)
    began, seen, total_loss, total_count = time.time(), first, 0.0, 0
    with (args.out / "log.jsonl").open("a") as log:
        for step in range(first, args.steps):
            factor = rate(step, args.steps)
            if step == AGAIN:
                muon.state.clear()
                adam.state.clear()
            for optimizer, lr in ((muon, args.lr), (adam, args.lr * 0.3)):
                optimizer.param_groups[0]["lr"] = lr * factor
            generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
            puzzles, problems = data.batch(step, args.batch)
            losses = [loss_of(net, *puzzles, generator), loss_of(net, *problems, generator, suffixes=step >= LAST)]
            count = sum(c for _, c in losses)
            loss = sum(total for total, _ in losses) / count
            loss.backward()
            nn.utils.clip_grad_norm_(others, 1.0)
            muon.step()
            adam.step()
            net.zero_grad(set_to_none=True)
            total_loss, total_count = total_loss + loss.item() * count, total_count + count
            done = step + 1
            if done % 50 == 0 or done == args.steps:
                row: dict[str, float] = {"step": done, "loss": round(total_loss / total_count, 4)}
                row["steps_per_s"] = round((done - seen) / (time.time() - began), 3)
                total_loss, total_count = 0.0, 0
                if done % args.eval_every == 0 or done == args.steps:
                    row |= evaluate(net, tokenizer)
                if done % 250 == 0 or done == args.steps:
                    part = checkpoint.with_suffix(".part")
                    torch.save(
                        {"net": net.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(), "step": done}, part
                    )
                    part.replace(checkpoint)
                    export(net, tokenizer, args.out / "model")
                log.write(json.dumps(row) + "\n")
                log.flush()
                print(row, flush=True)
                began, seen = time.time(), done


if __name__ == "__main__":
    main()
