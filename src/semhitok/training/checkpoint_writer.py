"""Writes the checkpoints of a run: a task's state from the main rank, a sharded state by all ranks while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from semhitok import distributed
from semhitok.distributed.shard_files import Checksums, ShardWriter, reason_of
from semhitok.storage.atomic import WriteError, atomic_directory
from semhitok.training import checkpoint


class CheckpointWriter:
    """Checkpoints in one directory, of which the newest ``keep`` stay; see ``training.checkpoint`` for their format.

    Args:
        directory: holds all checkpoints of the run, on storage shared by all ranks.
        keep: how many checkpoints to keep.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory, self.keep = directory, keep
        self._writer: ShardWriter | None = None
        self._begun: tuple[Path, Future[Any], ExitStack] | None = None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint. A collective: every rank passes its state.

        If nothing is sharded, the main rank writes, and the checkpoint is whole on return. Otherwise the state is copied and
        written in the background; the checkpoint appears under its name once it is whole.

        Raises:
            WriteError: this checkpoint cannot be written, or the one before could not be; earlier ones are untouched.
            CheckpointError: a value is neither plain nor a tensor.
        """
        self.wait()
        content = checkpoint.packed(state)
        if not content.sharded:
            if distributed.is_main():
                checkpoint.save(self.directory, step, state, keep=self.keep)
            distributed.wait_for_main()
            return
        stack = ExitStack()
        target = checkpoint.folder_of(self.directory, step)

        def begin() -> str:
            checkpoint.remove_unfinished(self.directory)
            folder = stack.enter_context(atomic_directory(target))
            (folder / checkpoint.SHARDS).mkdir()
            return str(folder)

        folder = Path(distributed.main_tells(begin))

        def complete(checksums: Checksums) -> None:
            checkpoint.write_values(folder, step, content, checksums)
            stack.close()
            checkpoint.remove_old(self.directory, self.keep, target)

        if self._writer is None:
            self._writer = ShardWriter()
        self._begun = target, self._writer.begin(folder / checkpoint.SHARDS, content.sharded, complete), stack

    def close(self) -> None:
        """As ``wait``; then release the copies that are kept for the next checkpoint."""
        self.wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def wait(self) -> None:
        """Wait until the last checkpoint is whole. Every rank must call it.

        Raises:
            WriteError: some rank could not write it.
        """
        if self._begun is None:
            return
        target, future, stack = self._begun
        self._begun = None
        try:
            future.result()
        except BaseException as error:
            reason = reason_of(error)
            stack.pop_all().__exit__(WriteError, WriteError(str(reason)), None)  # removes the unfinished folder
            if isinstance(reason, WriteError):
                raise reason from error
            if not isinstance(reason, OSError | ValueError):
                raise
            raise WriteError(f"cannot write {target}: {reason}; what was saved before is untouched") from error
