"""Records with ids in place of images, read from token files (see ``token_files``) row group by row group."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semhitok.data.block_order import WINDOW, BlockOrder
from semhitok.data.record_parsing import parse_record
from semhitok.data.records import Picture, Record, RecordKind, whatever_is_wrong
from semhitok.data.sample import digest_of_lines
from semhitok.data.token_files import TokenFormat, is_token_file, read_format

KEPT = 2 * WINDOW
"""Row groups kept in memory: those of two windows, since a batch may lie across two."""


class TokenRecords:
    """The rows of token files as records of one kind; those without a chat are left out if chats are asked for.

    Opening reads the footer of each file, and the column ``chat`` for chats.

    Args:
        path: a token file, or a folder of them.
        kind: kind of the records.

    Raises:
        ValueError: there are no token files, they are damaged or lack columns, their tokenizers differ, or there are no records.
    """

    def __init__(self, path: str | os.PathLike[str], kind: RecordKind) -> None:
        self.path = Path(path)
        self.kind: RecordKind = kind
        self.files = sorted(self.path.glob("*.parquet")) if self.path.is_dir() else [self.path]
        if not self.files:
            raise ValueError(f"{path}: there are no .parquet files.")
        found = [read_format(file) for file in self.files]
        self.format = found[0][0]
        for file, (form, _, _) in zip(self.files, found, strict=True):
            _check_same(self.files[0], self.format, file, form)
        self._groups = [
            (file, group) for file, (_, _, footer) in enumerate(found) for group in range(footer.num_row_groups)
        ]
        sizes = [footer.row_group(group).num_rows for _, _, footer in found for group in range(footer.num_row_groups)]
        self._rows = [self._chats(*place) for place in self._groups] if kind == "chat" else None
        self._sizes = np.array(sizes if self._rows is None else list(map(len, self._rows)), dtype=np.int64)
        if not self._sizes.sum():
            raise ValueError(f"{path}: has no records of kind {kind}.")
        self._ends = np.cumsum(self._sizes)
        self._fingerprint = digest_of_lines(
            [kind, self.tokenizer, *(f"{file.name}" for file in self.files), *map(str, sizes)]
        )
        self._kept: OrderedDict[int, _Group] = OrderedDict()

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer that made the ids."""
        return self.format.tokenizer

    @property
    def fingerprint(self) -> str:
        """See ``RecordSource``."""
        return self._fingerprint

    def __len__(self) -> int:
        return int(self._ends[-1])

    def order(self, seed: int) -> BlockOrder:
        """See ``OwnOrder``: the blocks are row groups."""
        return BlockOrder(self._sizes, seed)

    def name(self, index: int) -> str:
        """See ``RecordSource``."""
        number, row = self._place(index)
        file, group = self._groups[number]
        return f"{self.files[file].name} row {row} of group {group}"

    def read(self, index: int, choice: int) -> Record:
        """See ``RecordSource``."""
        number, row = self._place(index)
        with whatever_is_wrong(self.name(index)):
            key, fields, ids = self._group(number).row(row)
            name = f"{self.files[self._groups[number][0]].name}: {key}"
            if self.kind == "text":
                fields.setdefault("text", (fields.get("captions") or [None])[0])
            picture = Picture(name, ids=ids, tokenizer=self.tokenizer)
            return parse_record(fields, self.kind, name, [picture], choice)

    def check_tokenizer(self, fingerprint: str | None) -> None:
        """Refuse ids of another tokenizer than that of this fingerprint, and any ids for None.

        Raises:
            ValueError: see above.
        """
        if fingerprint is None:
            raise ValueError(
                f"{self.path}: holds ids, but continuous features are computed from images: pass the images."
            )
        if fingerprint != self.tokenizer:
            raise ValueError(
                f"{self.path}: its ids come from the tokenizer {self.tokenizer}, this model has {fingerprint}: tokenize the "
                "images again with `semhitok pretokenize`."
            )

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the row group, and the row in it."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        within = index - int(self._ends[number] - self._sizes[number])
        return number, within if self._rows is None else int(self._rows[number][within])

    def _chats(self, file: int, group: int) -> np.ndarray:
        column = self._read(file, group, ["chat"])["chat"]
        return np.flatnonzero(column.to_numpy(zero_copy_only=False)).astype(np.int32)

    def _group(self, number: int) -> _Group:
        if number not in self._kept:
            columns = [*self.format.id_columns, "key", "captions", "metadata"]
            self._kept[number] = _Group(self.format, self._read(*self._groups[number], columns))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _read(self, file: int, group: int, columns: list[str]) -> Any:
        from pyarrow.parquet import ParquetFile

        # Without threads of pyarrow's own, which a forked reader process does not have.
        with ParquetFile(self.files[file]) as opened:
            return opened.read_row_group(group, columns, use_threads=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict()}


class _Group:
    """A row group in memory."""

    def __init__(self, form: TokenFormat, table: Any) -> None:
        self.form, self.table = form, table
        columns = {name: table[name].combine_chunks() for name in form.id_columns}
        self.ids = {name: each.flatten().to_numpy().reshape(len(each), -1) for name, each in columns.items()}

    def row(self, row: int) -> tuple[str, dict[str, Any], np.ndarray]:
        """Key, the fields that describe the image, and its ids (N,) or (N,C)."""
        key, captions, metadata = (self.table[name][row].as_py() for name in ("key", "captions", "metadata"))
        fields: dict[str, Any] = json.loads(metadata)
        if captions is not None:
            fields["captions"] = captions
        ids: Mapping[str, np.ndarray] = {name: values[row : row + 1] for name, values in self.ids.items()}
        return key, fields, self.form.join(ids)[0]


def holds_tokens(path: Path) -> bool:
    """Whether a path is a parquet file, or a folder whose first parquet file is a token file or that holds nothing else."""
    if path.suffix == ".parquet" and path.is_file():
        return True
    first = next(iter(sorted(path.glob("*.parquet"))), None) if path.is_dir() else None
    return first is not None and (is_token_file(first) or not any(path.glob("*.tar")))


def _check_same(first: Path, wanted: TokenFormat, file: Path, form: TokenFormat) -> None:
    if form.tokenizer != wanted.tokenizer or form.shape != wanted.shape:
        raise ValueError(
            f"{file}: its ids come from the tokenizer {form.tokenizer}, those of {first.name} beside it from {wanted.tokenizer}: "
            "the files of a folder need the same tokenizer."
        )
