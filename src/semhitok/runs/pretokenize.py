"""Token ids of whole data sets: one shard in, one token file out (see ``data.token_files``).

``tokenize_shard`` does the work; a loop over this worker's shards and Ray (``pretokenize_ray``) only call it. Images are encoded in
batches of a fixed size, in which each image has a fixed place: bad images and the end of a shard leave theirs blank. So ids depend on
the image and the batch size alone, not on who reads what, and not on other images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semhitok.data.images import ImageError, stored_size
from semhitok.data.reading import in_threads
from semhitok.data.sample import ImageSource
from semhitok.data.shards import Shard
from semhitok.data.token_files import TokenFormat, TokenRow, read_format, schema, table
from semhitok.data.transforms import fit_image, to_float, to_uint8
from semhitok.storage.atomic import atomic_file, remove_leftovers, write_text
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.types import FitMode

ROWS_OF_A_GROUP = 512
REJECTS = "rejects"
"""Folder beside the token files with a ``.jsonl`` of key and reason for each shard that has bad images."""


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        fit: how they are made square.
        batch_size: images of a batch.
        readers: threads that read and decode.
        draft: decode JPEG files at a fraction of their size where that is enough, see ``load_image``.
    """

    fit: FitMode = "crop"
    batch_size: int = 32
    readers: int = 4
    draft: bool = False


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard.

    Attributes:
        name: name of the shard.
        images: images with ids.
        rejected: images that could not be read.
        done_before: whether the token file was there already.
        error: why the shard as a whole could not be read; nothing was written then.
    """

    name: str
    images: int = 0
    rejected: int = 0
    done_before: bool = False
    error: str | None = None


def token_format(tokenizer: Tokenizer, reading: Reading) -> TokenFormat:
    """The format of the ids that a tokenizer makes."""
    size = tokenizer.config.image_size
    sizes: tuple[int, ...] | None = None
    if tokenizer.semantic_codebook_size is not None:
        sizes = tokenizer.config.id_layout.sizes
    return TokenFormat(
        tokenizer=tokenizer_fingerprint(tokenizer),  # pyright: ignore[reportArgumentType]  every tokenizer is a module
        kind=tokenizer.config.model_type,
        image_size=size,
        fit=reading.fit,
        grid=tuple(tokenizer.config.grid(size, size)),
        codes_per_token=tokenizer.codes_per_token,
        vocab_size=tokenizer.vocab_size,
        subcodebook_sizes=sizes[0] if sizes and len(set(sizes)) == 1 else sizes,
        semantic_codes=tokenizer.semantic_codebook_size,
        batch_size=reading.batch_size,
        jpeg="draft" if reading.draft else "full",
    )


def shards_of(shards: Sequence[Shard], worker: int, of: int) -> Sequence[Shard]:
    """Every ``of``-th shard from number ``worker``.

    Raises:
        ValueError: the worker is not in [0, of).
    """
    if not 0 <= worker < of:
        raise ValueError(f"workers are counted from 0: worker {worker} of {of} does not exist.")
    return shards[worker::of]


def tokenize_shards(
    shards: Sequence[Shard], out: Path, tokenizer: Tokenizer, reading: Reading
) -> Iterator[ShardResult]:
    """One shard after the other; see ``tokenize_shard``. A shard that cannot be read does not stop the others."""
    form = token_format(tokenizer, reading)
    for shard in shards:
        yield tokenize_shard(shard, out, tokenizer, form, reading.readers)


@torch.no_grad()
def tokenize_shard(shard: Shard, out: Path, tokenizer: Tokenizer, form: TokenFormat, readers: int = 4) -> ShardResult:
    """Write ``NAME.parquet`` and, for bad images, ``rejects/NAME.jsonl``, unless they are there.

    Args:
        shard: the images.
        out: folder to write to.
        tokenizer: with its encoder side.
        form: see ``token_format``.
        readers: threads that read and decode while the model computes.

    Raises:
        ValueError: the token file is there, but comes from another tokenizer, other settings or another shard.
        WriteError: a file cannot be written.
    """
    target, rejects = out / f"{shard.name}.parquet", out / REJECTS / f"{shard.name}.jsonl"
    done = _done_before(target, shard, form)
    if done is not None:
        return ShardResult(shard.name, done, _count_lines(rejects), done_before=True)
    try:
        source = shard.open(form.image_size if form.jpeg == "draft" else None)
    except ValueError as error:
        return ShardResult(shard.name, error=str(error))
    layout = schema(form, {"name": shard.name, "stamp": shard.stamp})
    bad: list[tuple[str, str]] = []
    remove_leftovers(target)
    with atomic_file(target) as unfinished:
        images = _write(unfinished, layout, form, _encoded(source, tokenizer, form, readers, bad))
        if bad:
            lines = (json.dumps({"key": key, "reason": reason}) for key, reason in bad)
            write_text(rejects, "".join(f"{line}\n" for line in lines))
        else:
            rejects.unlink(missing_ok=True)  # of an earlier attempt, when more images were bad
    return ShardResult(shard.name, images, len(bad))


def _done_before(target: Path, shard: Shard, form: TokenFormat) -> int | None:
    """Number of images of a finished token file, None if there is none or it is damaged."""
    if not target.is_file():
        return None
    try:
        found, source, footer = read_format(target)
    except ValueError:
        return None
    differing = [name for name, value in asdict(form).items() if value != asdict(found)[name]]
    if differing:
        raise ValueError(
            f"{target}: was written with another {differing[0].replace('_', ' ')} ({getattr(found, differing[0])}, now "
            f"{getattr(form, differing[0])}): choose another folder for --out, or remove it."
        )
    if source.get("stamp") != shard.stamp:
        raise ValueError(
            f"{target}: was made from other data called {shard.name}: choose another folder, or remove it."
        )
    return footer.num_rows


def _write(path: Path, layout: object, form: TokenFormat, encoded: Iterator[tuple[np.ndarray, list[TokenRow]]]) -> int:
    """Write row groups as they fill; returns the number of rows."""
    from pyarrow.parquet import ParquetWriter

    ids: list[np.ndarray] = []
    rows: list[TokenRow] = []
    count = 0
    # Ids are nearly random bits: dictionaries would only cost time.
    with ParquetWriter(path, layout, compression="zstd", use_dictionary=False) as writer:
        for ids_BN, found in encoded:
            ids.append(ids_BN)
            rows += found
            count += len(found)
            while len(rows) >= ROWS_OF_A_GROUP:
                whole = np.concatenate(ids)
                writer.write_table(table(form, layout, whole[:ROWS_OF_A_GROUP], rows[:ROWS_OF_A_GROUP]))
                ids, rows = [whole[ROWS_OF_A_GROUP:]], rows[ROWS_OF_A_GROUP:]
        if rows:
            writer.write_table(table(form, layout, np.concatenate(ids), rows))
    return count


def _encoded(
    source: ImageSource, tokenizer: Tokenizer, form: TokenFormat, readers: int, bad: list[tuple[str, str]]
) -> Iterator[tuple[np.ndarray, list[TokenRow]]]:
    """Ids and rows of the good images of each batch; bad ones are added to ``bad``."""
    side, size = form.image_size, form.batch_size

    def read(index: int) -> tuple[Tensor, TokenRow] | tuple[str, str]:
        try:
            sample = source.load(index)
        except ImageError as error:
            return source.key(index), str(error)
        width, height = stored_size(sample.image)
        row = TokenRow(sample.key, height, width, _without_images(sample.metadata))
        return to_uint8(fit_image(sample.image, side, side, form.fit)), row  # pyright: ignore[reportArgumentType]

    places: list[int] = []
    rows: list[TokenRow] = []
    batch = torch.zeros(size, 3, side, side, dtype=torch.uint8)
    total = len(source)
    for index, found in enumerate(in_threads(read, range(total), threads=readers, ahead=2 * size)):
        if isinstance(found[1], TokenRow):
            batch[index % size] = found[0]  # pyright: ignore[reportArgumentType]
            places.append(index % size)
            rows.append(found[1])
        else:
            bad.append(found)  # pyright: ignore[reportArgumentType]
        if index % size == size - 1 or index == total - 1:
            if places:
                pixels = to_float(batch.to(tokenizer.device)).to(tokenizer.dtype)
                yield tokenizer.encode(pixels).ids.cpu().numpy()[places], rows
            places, rows = [], []
            batch.zero_()


def _without_images(description: dict[str, object]) -> dict[str, object]:
    """A description without the fields that name the image, which is now its ids."""
    return {
        name: value for name, value in description.items() if name not in ("image", "images", "image_ids", "tokenizer")
    }


def _count_lines(path: Path) -> int:
    with suppress(FileNotFoundError), path.open("rb") as file:
        return sum(1 for _ in file)
    return 0
