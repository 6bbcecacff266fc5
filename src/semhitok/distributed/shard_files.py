"""Sharded tensors in files: every rank writes its parts, and any number of ranks reads them (torch.distributed.checkpoint).

The files are safetensors with the place of each part in its header, as ``HuggingFaceStorageWriter`` writes them: nothing is
pickled. A part that several ranks hold alike is written by one of them.
"""

from __future__ import annotations

import dataclasses
import warnings
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor, distribute_tensor

from semhitok.distributed.processes import is_distributed

LONGEST_WRITE = timedelta(hours=6)
"""Ranks wait for each other's writes for so long; those of a lost rank end earlier (``watch_other_ranks``)."""

_READERS, _CHUNK = 8, 1 << 24
Checksums = Mapping[str, str]


class ShardWriter:
    """Writes sharded tensors in the background, one folder after another. Construction is a collective.

    The copies that are written stay in memory: filling memory that the system has yet to provide takes several times longer.
    """

    def __init__(self) -> None:
        # The writing thread communicates beside the training's collectives.
        self._group = dist.new_group(backend="gloo", timeout=LONGEST_WRITE)
        pinned = torch.cuda.is_available()
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=pinned, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=pinned
            )
        )

    def begin(self, folder: Path, tensors: Mapping[str, Tensor], complete: Callable[[Checksums], None]) -> Future[Any]:
        """Copy the tensors, then write them while the caller goes on. A collective.

        Args:
            folder: exists and is seen by all ranks.
            tensors: sharded tensors by name.
            complete: called in the main rank's writing thread once all ranks have written, with checksums of the files
                (``checksum_of_file``) by name.

        Returns:
            Its result is None, or the error of any rank, on all of them (``reason_of``).
        """
        writer = _Writer(folder, complete)
        # All tensors have one of the names, in the same order, on every rank.
        return async_save(  # pyright: ignore[reportReturnType]
            dict(tensors),
            storage_writer=writer,
            process_group=self._group,  # pyright: ignore[reportArgumentType]
            async_stager=self._stager,
        )

    def close(self) -> None:
        """Release the copies. Nothing may be in the course of being written."""
        self._stager.close()


class _Writer(HuggingFaceStorageWriter):
    """Also gives the main rank a checksum of each file."""

    def __init__(self, folder: Path, complete: Callable[[Checksums], None]) -> None:
        super().__init__(str(folder), save_distributed=True)
        self._complete = complete

    def write_data(self, plan: Any, planner: Any) -> Any:
        written = super().write_data(plan, planner).value()
        checksums = {name: checksum_of_file(Path(self.path) / name) for name in {_file(each) for each in written}}
        future: torch.futures.Future[Any] = torch.futures.Future()
        future.set_result(
            [dataclasses.replace(each, storage_data=(_file(each), checksums[_file(each)])) for each in written]
        )
        return future

    def finish(self, metadata: Any, results: Any) -> None:
        self._complete(dict(each.storage_data for of_rank in results for each in of_rank))


def _file(written: Any) -> str:
    return written.storage_data.relative_path


def read_shards(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Read tensors in place, of which every rank reads its part, if they are sharded. A collective.

    Args:
        folder: what a ``ShardWriter`` wrote.
        into: tensors by name, whole or sharded in any way, with the shapes of those in the folder.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no_dist.*|.*torch.distributed.*")
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not is_distributed())


def placed_like(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every rank has, divided as ``like`` is."""
    if not isinstance(like, DTensor):
        return whole
    on_device = whole.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)


def checksum_of_file(path: Path) -> str:
    """CRC-32 of a file's bytes, in hex."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return f"{found:08x}"


def damaged_files(folder: Path, checksums: Checksums) -> list[str]:
    """Names of the files that are missing or not as they were written."""

    def differs(name: str) -> bool:
        try:
            return checksum_of_file(folder / name) != checksums[name]
        except OSError:
            return True

    with ThreadPoolExecutor(_READERS) as pool:
        return [name for name, wrong in zip(checksums, pool.map(differs, checksums), strict=True) if wrong]


def reason_of(error: BaseException) -> BaseException:
    """The error of the first rank that failed to read or write, out of what all ranks get."""
    failures = error.failures if isinstance(error, CheckpointException) else {}
    return failures[min(failures)][0] if failures else error
