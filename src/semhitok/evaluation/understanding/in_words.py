"""What a model answers about composed scenes from their captions, without any image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from semhitok.evaluation.understanding.answer_scores import Share, accuracies
from semhitok.evaluation.understanding.scene_questions import AskedScenes
from semhitok.inference.answering import answer_from_captions
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.visualization.markdown import table

THUMBNAIL = 16
"""Side in pixels to which images are reduced, which nobody looks at."""


@dataclass(frozen=True)
class WordsReport:
    """Answers from captions; ``dataclasses.asdict`` of it is JSON.

    Attributes:
        fingerprint: identifies the scenes.
        scenes: number of scenes with captions and questions.
        accuracy: exact matches by group of questions, see ``groups_of``.
    """

    fingerprint: str
    scenes: int
    accuracy: dict[str, Share]

    def to_markdown(self) -> str:
        """A table of accuracies by group."""
        rows = [
            [group, f"{share.total:,}", f"{100 * share.share:.1f} ± {100 * share.standard_error:.1f} %"]
            for group, share in self.accuracy.items()
        ]
        return (
            f"{table(['', 'n', 'model, told in words'], rows)}\n\n* {self.scenes:,} scenes with captions in place of their "
            "images; answers are generated greedily and must match exactly, except for case and a final full stop.\n"
        )


def answers_in_words(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    folder: str | os.PathLike[str],
    *,
    limit: int | None = None,
    batch_size: int = 64,
    progress: Callable[[str, int, int], None] | None = None,
) -> WordsReport:
    """Ask a model all questions about scenes, each with the scene's captions in place of its image.

    Args:
        model: in eval mode; the encoder side of its image tokenizer is not used.
        processor: the model's own.
        folder: folder of webdataset tars of scenes, as ``semhitok data scenes`` writes them.
        limit: number of scenes from the first on; None for all. Whole tars keep the questions balanced.
        batch_size: prompts per batch.
        progress: called after every batch.

    Raises:
        ValueError: no scene has captions and questions, captions leave no room for an answer, or limit or batch_size is
            below 1.
    """
    report = progress or (lambda what, done, total: None)
    reader, scenes, read = AskedScenes(folder, THUMBNAIL, limit=limit, batch_size=batch_size), [], 0
    for _, batch in reader:
        read += len(batch)
        report("scenes", read, len(reader))
        scenes += [scene for scene in batch if scene.questions and scene.description]
    if not scenes:
        raise ValueError(f"{folder}: no scene has captions and questions (qa) in the JSON beside its image")
    questions = [question for scene in scenes for question in scene.questions]
    answers = answer_from_captions(
        model,
        processor,
        [scene.description for scene in scenes for _ in scene.questions],
        [question.question for question in questions],
        batch_size=batch_size,
        progress=lambda done, total: report("answers, told in words", done, total),
    )
    if answers is None:
        raise ValueError(f"{folder}: captions of a scene fill the context of {processor.context_length} positions")
    return WordsReport(reader.source.fingerprint, len(scenes), accuracies(questions, answers))
