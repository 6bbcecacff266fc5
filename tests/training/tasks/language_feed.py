"""Packed rows of scenes on disk for the tasks of the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.mllm.tiny_mllm import processor

from semhitok.data.mixture import Mixture
from semhitok.data.packed_feed import PackedFeed, RowFormat
from semhitok.data.packing import PackedRows
from semhitok.data.record_sources import Pretokenized, RecordTars
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.mllm.sequences import SequenceBuilder

ROW = 96


def feed(
    model: SemHiTokForConditionalGeneration, scenes: Path, learn: Any = "everything", **options: Any
) -> PackedFeed:
    """Captions and prompts; ids computed beforehand where they are given."""
    kinds = options.pop("kinds", ("caption", "text_to_image"))
    sources: list[Any] = [RecordTars([scenes], kind) for kind in kinds]
    if "ids" in options:
        sources = [Pretokenized(source, options["ids"], "ours") for source in sources]
    build = SequenceBuilder(processor(model), learn=learn, unconditional=0.1, max_length=ROW, tokenizer="ours")
    vocabulary = model.vocabulary
    codes = (vocabulary.codes_per_token,) if vocabulary.codes_per_token > 1 else ()
    form = RowFormat(model.config.tokenizer_config.image_size, (vocabulary.image_tokens, *codes), pad_id=0)
    rows = PackedRows(Mixture(sources, [1.0] * len(sources), 7), build, ROW, 4)
    return PackedFeed(rows, form, device=options.get("device", "cpu"))
