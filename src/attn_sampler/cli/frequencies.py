"""The command that counts a corpus's tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from attn_sampler.cli.options import Family, Model
from attn_sampler.errors import InvalidInputError

if TYPE_CHECKING:
    from attn_sampler.frequencies import Frequencies

__all__ = ["count", "files_of", "frequencies"]

PIECE = 1 << 20  # characters of a text tokenized at a time, cut at line ends
LINES = ".jsonl"
ENDINGS = (".txt", LINES)  # of the files of a folder that are read


def frequencies(
    corpus: Annotated[
        list[Path],
        typer.Argument(metavar="CORPUS...", help="Text files (UTF-8), .jsonl files, and folders: all .txt and .jsonl in them."),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the table goes.")],
    field: Annotated[str, typer.Option(help="Holds the text in each line of a .jsonl file.")] = "text",
    model: Model = None,
    family: Family = None,
) -> None:
    """Count the tokens of a corpus, each file once, for `--sampler pc-sampler -o frequencies=FILE`."""
    files = files_of(corpus)
    table = count(files, model, family, field)
    table.write(output)
    kinds = int((table.counts > 0).sum())
    read = f"{len(files)} file{'' if len(files) == 1 else 's'}"
    typer.echo(f"wrote {output}: {table.total} tokens of {read}, {kinds} of {table.vocab_size} ids", err=True)


def files_of(corpus: Sequence[Path]) -> list[Path]:
    """The files that are meant, each once: those given and, of folders and what is below them, all of `ENDINGS`, by name.

    Raises:
        InvalidInputError: a folder holds none.
    """
    found: dict[Path, Path] = {}
    for path in corpus:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in ENDINGS and file.is_file())
            if not files:
                raise InvalidInputError("corpus", str(path), f"holds no {' or '.join(ENDINGS)} file; give others by their names")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def count(files: Sequence[Path], model: str | None, family: str | None, field: str = "text") -> Frequencies:
    """The table of some files together, under a model's tokenizer, whose weights are not loaded.

    Args:
        field: of each object of a ``.jsonl`` file.

    Raises:
        InvalidInputError: a file cannot be read, all of them hold no token, or the model has no tokenizer.
    """
    from attn_sampler.engine import EMBEDDED
    from attn_sampler.frequencies import Frequencies
    from attn_sampler.models import load_tokenizer

    tokenizer, vocab_size = load_tokenizer(EMBEDDED if model is None else model, family=family)
    if tokenizer is None:
        raise InvalidInputError("model", str(model), "this checkpoint has no tokenizer, so there is no text to count")
    counts = None
    for path in files:
        try:
            with path.open(encoding="utf-8") as file:
                for text in _records(path, file, field) if path.suffix == LINES else _pieces(file):
                    ids = tokenizer.encode(text, add_special_tokens=False)
                    if ids:
                        found = Frequencies.count(ids, vocab_size).counts
                        counts = found if counts is None else counts + found
        except OSError as error:
            raise InvalidInputError("corpus", str(path), f"cannot be read ({error.strerror}); give a text file") from error
        except UnicodeDecodeError as error:
            raise InvalidInputError("corpus", str(path), f"is not UTF-8 ({error.reason}); give a text file") from error
    if counts is None:
        shown = str(files[0]) if len(files) == 1 else f"{len(files)} files"
        raise InvalidInputError("corpus", shown, "holds no token; give a text file")
    return Frequencies(counts)


def _pieces(file: TextIO) -> Iterator[str]:
    """A text in pieces of whole lines."""
    while piece := "".join(file.readlines(PIECE)):
        yield piece


def _records(path: Path, file: TextIO, field: str) -> Iterator[str]:
    """The texts of JSON Lines, one by one; empty lines are none."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError("corpus", str(path), f"line {number} is not JSON; give JSON Lines, or a .txt file") from error
        text = record.get(field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            names = [name for name, value in record.items() if isinstance(value, str)] if isinstance(record, dict) else []
            remedy = f"line {number} has no text in the field {field!r}; name another with --field ({', '.join(names) or 'none'})"
            raise InvalidInputError("corpus", str(path), remedy)
        yield text
