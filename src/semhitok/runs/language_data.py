"""The records of a run: its data sets, their proportions, and precomputed ids of images.

Data are either a folder of tars, such as scenes with captions and questions, or of the token files of ``semhitok pretokenize``, which
provides every kind of record in the recipe's mix, or a ``.json`` file that lists data sets by stage::

    {"pretrain": [{"path": "captions/", "kind": "caption"}, {"path": "text.jsonl", "kind": "text", "weight": 2}],
     "sft": [{"path": "chats.jsonl", "kind": "chat"}]}

Paths are relative to the file. The recipe's mix sets the proportions of kinds, the weights those within a kind; without
weights, all records of a kind are equally likely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from semhitok import distributed
from semhitok.data.images import ImageError
from semhitok.data.mixture import Mixture
from semhitok.data.record_sources import Chosen, Pretokenized, RecordSource, RecordTars, open_records
from semhitok.data.records import RecordError, RecordKind
from semhitok.data.token_records import TokenRecords
from semhitok.data.transforms import fit_image, to_float, to_uint8
from semhitok.recipes.language_recipe import Mix
from semhitok.runs.preparation import CACHE_BATCH, Report
from semhitok.storage.array_cache import ArrayCache, CacheKey, digest_of_text
from semhitok.storage.configuration import one_line, read_configuration
from semhitok.storage.objects import is_remote
from semhitok.types import FitMode, LanguageStageName

TEXTS_TO_LEARN_FROM = 200_000
LARGEST_WEIGHT = 1e12


@dataclass(frozen=True)
class DataSet:
    """One data set; its weight is relative to others of its kind."""

    path: Path
    kind: RecordKind
    weight: float | None = None


def data_sets(data: Path, stage: LanguageStageName, mix: Mix) -> list[DataSet]:
    """The data sets of a stage.

    Raises:
        ValueError: the file does not list data sets, a weight is not above 0, or the kinds differ from those of the mix.
    """
    shares: dict[Any, float] = asdict(mix)
    if data.suffix != ".json":
        return [DataSet(data, kind) for kind, share in shares.items() if share > 0]
    try:
        listed = read_configuration(data)[stage]
        found = [_listed(data, f"{stage}[{index}]", each) for index, each in enumerate(list(listed))]
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(
            f'{data} must list data sets as {{"{stage}": [{{"path", "kind"}}, ...]}} ({one_line(error)})'
        ) from error
    kinds = {each.kind for each in found}
    wanted = {kind for kind, share in shares.items() if share > 0}
    if kinds != wanted:
        raise ValueError(
            f"{data}: stage {stage} has data sets of kind {', '.join(sorted(kinds)) or 'none'}, the recipe's mix asks for "
            f"{', '.join(sorted(wanted))}: change one of them"
        )
    return found


def _listed(data: Path, place: str, entry: Any) -> DataSet:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or "\0" in entry["path"]:
        raise ValueError(f'{data}: {place} must be an object with a "path" and a "kind", got {str(entry)[:80]!r}')
    kind: Any = entry.get("kind")
    weight = entry.get("weight")
    if kind not in get_args(RecordKind):
        raise ValueError(f"{data}: the kind of {place} must be one of {', '.join(get_args(RecordKind))}, got {kind!r}")
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= LARGEST_WEIGHT
    ):
        raise ValueError(
            f"{data}: the weight of {place} must be a number above 0 and at most {LARGEST_WEIGHT:g}, got {str(weight)[:80]!r}"
        )
    return DataSet(_place(data, entry["path"]), kind, weight)


def open_data_set(entry: DataSet, report: Report, *, allow_outside: bool = False) -> RecordSource:
    """The records of a data set; only scenes that have the kind are kept (photographs without objects have no questions)."""
    source = open_records(entry.path, entry.kind, allow_outside=allow_outside)
    if not isinstance(source, RecordTars) or not (entry.path / "dataset.json").exists():
        return source
    kept = [index for index in range(len(source)) if _is_readable(source, index)]
    if not kept:
        raise ValueError(f"{entry.path}: no scene has a record of kind {entry.kind}")
    if len(kept) < len(source):
        report(f"{len(kept)} of {len(source)} scenes have a record of kind {entry.kind}")
    return Chosen(source, kept)


def check_tokens(sources: Sequence[RecordSource], fingerprint: str | None) -> None:
    """Refuse token files of another tokenizer than the model's, of this fingerprint; see ``TokenRecords.check_tokenizer``."""
    for source in sources:
        if isinstance(source, TokenRecords):
            source.check_tokenizer(fingerprint)


def mixture(entries: Sequence[DataSet], sources: Sequence[RecordSource], mix: Mix, seed: int) -> Mixture:
    """The sources in the proportions of the mix."""
    shares: dict[str, float] = asdict(mix)
    within = [
        len(source) if entry.weight is None else entry.weight for entry, source in zip(entries, sources, strict=True)
    ]
    totals: dict[str, float] = {}
    for entry, weight in zip(entries, within, strict=True):
        totals[entry.kind] = totals.get(entry.kind, 0.0) + weight
    weights = [shares[entry.kind] * weight / totals[entry.kind] for entry, weight in zip(entries, within, strict=True)]
    return Mixture(sources, weights, seed)


@torch.no_grad()
def pretokenized(
    source: RecordSource, tokenizer: Any, fingerprint: str, fit: FitMode, cache: Path, report: Report
) -> RecordSource:
    """The source with cached ids of its images; sources other than tars are returned as is.

    Every rank must call it: unless they are cached, the main one computes the ids, while the others wait.
    """
    chosen = source if isinstance(source, Chosen) else None
    tars = source if chosen is None else chosen.source
    if not isinstance(tars, RecordTars) or tars.kind == "text":
        return source
    # Records of every kind share the same images.
    side, images = tokenizer.config.image_size, tars.images_fingerprint
    key = CacheKey(teacher=fingerprint, transform=digest_of_text(f"{side} {fit}"), data=images)
    path = cache / f"image_ids-{digest_of_text(f'{fingerprint} {key.transform} {images}')[:12]}.cache"

    def write_unless_there() -> bool:
        if path.exists():
            return False
        report(f"tokenizing {len(tars)} images")
        codes = [tokenizer.codes_per_token] if tokenizer.codes_per_token > 1 else []
        with ArrayCache.create(path, key, (len(tars), tokenizer.num_tokens, *codes), np.int32) as writer:
            for start in range(0, len(tars), CACHE_BATCH):
                indices = range(start, min(start + CACHE_BATCH, len(tars)))
                writer.write(start, _ids(tars, indices, tokenizer, fit))
            writer.finish()
        return True

    distributed.main_decides(write_unless_there)
    found = Pretokenized(tars, ArrayCache.open(path, key).array, fingerprint)
    return found if chosen is None else Chosen(found, chosen.indices)


def texts(sources: Sequence[RecordSource], *, before_answers: str = "") -> Iterator[str]:
    """The texts to learn a text tokenizer from, of at most TEXTS_TO_LEARN_FROM records of each source.

    ``before_answers`` is what the chat template writes between the role and an answer.
    """
    for source in sources:
        for index in range(min(len(source), TEXTS_TO_LEARN_FROM)):
            try:
                record = source.read(index, index)
            except RecordError:
                continue
            if record.kind == "chat":
                yield from (before_answers * (turn.role == "assistant") + turn.text for turn in record.turns)
            else:
                yield record.text


def _place(data: Path, path: str) -> Path:
    """A path relative to the file that lists it; addresses stay as they are (see ``storage.objects.address``)."""
    return Path(path) if is_remote(path) else data.parent / path


def _is_readable(source: RecordSource, index: int) -> bool:
    try:
        source.read(index, 0)
    except RecordError:
        return False
    return True


def _ids(tars: RecordTars, indices: range, tokenizer: Any, fit: FitMode) -> np.ndarray:
    """(n,N) or (n,N,C); -1 for images that cannot be read."""
    side, codes = tokenizer.config.image_size, [tokenizer.codes_per_token] if tokenizer.codes_per_token > 1 else []
    images, rows = [], []
    for row, index in enumerate(indices):
        try:
            images.append(to_uint8(fit_image(tars.picture(index).load(), side, side, fit)))
            rows.append(row)
        except (RecordError, ImageError, OSError):
            continue
    ids = np.full((len(indices), tokenizer.num_tokens, *codes), -1, dtype=np.int32)
    if images:
        ids[rows] = tokenizer.encode(to_float(torch.stack(images).to(tokenizer.device))).ids.cpu().numpy()
    return ids
