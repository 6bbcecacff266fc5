"""Images that a command skipped because they cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semhitok.data.images import ImageError
from semhitok.tokenizers.image_processing import ImageLike

LISTED = 20  # errors printed one by one


class SkippedImages:
    """Collects them while a command runs."""

    def __init__(self) -> None:
        self._errors: list[tuple[ImageLike, ImageError]] = []

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, image: ImageLike, error: ImageError) -> None:
        """Note an image and what is wrong with it."""
        self._errors.append((image, error))

    def without(self, files: Sequence[Path]) -> list[Path]:
        """The files that were not skipped."""
        skipped = {str(image) for image, _ in self._errors}
        return [file for file in files if str(file) not in skipped]

    def report(self, total: int) -> None:
        """Print what was skipped.

        Raises:
            ValueError: none of the ``total`` images can be read.
        """
        errors = [error for _, error in self._errors]
        if total == 1 and errors:
            raise errors[0]
        for error in errors[:LISTED]:
            print(f"skipped {error}")
        if errors and len(errors) == total:
            raise ValueError(f"none of the {total} images can be read")
        if errors:
            print(f"{len(errors)} bad image{'s' if len(errors) > 1 else ''} of {total} skipped in all")
