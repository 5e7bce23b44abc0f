"""The command that counts a text's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attn_sampler.cli.options import Family, Model
from attn_sampler.errors import InvalidInputError

if TYPE_CHECKING:
    from attn_sampler.frequencies import Frequencies

__all__ = ["count", "frequencies"]

PIECE = 1 << 20  # characters tokenized at a time, cut at line ends


def frequencies(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="A text file (UTF-8).")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the table goes.")],
    model: Model = None,
    family: Family = None,
) -> None:
    """Count the tokens of a text, for `--sampler pc-sampler -o frequencies=FILE`."""
    table = count(corpus, model, family)
    table.write(output)
    kinds = int((table.counts > 0).sum())
    typer.echo(f"wrote {output}: {table.total} tokens, {kinds} of {table.vocab_size} ids", err=True)


def count(corpus: Path, model: str | None, family: str | None) -> Frequencies:
    """The table of a text file under a model's tokenizer, whose weights are not loaded."""
    from attn_sampler.engine import EMBEDDED
    from attn_sampler.frequencies import Frequencies
    from attn_sampler.models import load_tokenizer

    tokenizer, vocab_size = load_tokenizer(EMBEDDED if model is None else model, family=family)
    if tokenizer is None:
        raise InvalidInputError("model", str(model), "this checkpoint has no tokenizer, so there is no text to count")
    counts = None
    try:
        with corpus.open(encoding="utf-8") as file:
            while piece := "".join(file.readlines(PIECE)):
                ids = tokenizer.encode(piece, add_special_tokens=False)
                if ids:
                    found = Frequencies.count(ids, vocab_size).counts
                    counts = found if counts is None else counts + found
    except OSError as error:
        raise InvalidInputError("corpus", str(corpus), f"cannot be read ({error.strerror}); give a text file") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError("corpus", str(corpus), f"is not UTF-8 ({error.reason}); give a text file") from error
    if counts is None:
        raise InvalidInputError("corpus", str(corpus), "holds no token; give a text file")
    return Frequencies(counts)
