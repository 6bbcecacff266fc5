"""How well a unified model understands images: questions about composed scenes and captions, with blind baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from semhitok.data.reading import BadImage
from semhitok.evaluation.understanding.answer_scores import (
    CaptionScores,
    ConceptFinder,
    ExistenceScores,
    Named,
    Share,
    accuracies,
    existence_scores,
    normalised,
)
from semhitok.evaluation.understanding.blind import Prior, other_scenes
from semhitok.evaluation.understanding.scene_questions import GROUPS, AskedScene, AskedScenes, groups_of
from semhitok.inference.answering import (
    answer_from_captions,
    answer_questions,
    caption_images,
    tokenize_images,
)
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.continuous import ContinuousProjector
from semhitok.scenes.questions import Question
from semhitok.visualization.markdown import percent, table

PRIOR_SCENES = 20_000
Progress = Callable[[str, int, int], None]
"""(description, number done, total)."""


@dataclass(frozen=True)
class AnswerScores:
    """Scores of one way of answering.

    Attributes:
        accuracy: exact matches by group of questions, see ``groups_of``.
        existence: POPE's metrics by group.
        captions: scores over the scenes with objects; None without any.
    """

    accuracy: dict[str, Share]
    existence: dict[str, ExistenceScores]
    captions: CaptionScores | None


@dataclass(frozen=True)
class UnderstandingReport:
    """A model's answers about scenes and blind baselines; ``dataclasses.asdict`` of it is JSON.

    Attributes:
        fingerprint: identifies the scenes.
        scenes: number of scenes with objects or questions; there are no questions about bare photographs.
        questions: number by group.
        model: the model, shown each scene.
        in_words: the model, given the scene's captions in place of its image and asked questions only; None if a scene
            with questions has no captions, or more than fit into the context.
        prior: the most frequent answer in training, see ``blind.Prior``; its caption names the same concepts for all.
        other_image: the model, shown another scene.
        chance: accuracy of an answer sampled uniformly, by group.
        bad: unreadable images.
    """

    fingerprint: str
    scenes: int
    questions: dict[str, int]
    model: AnswerScores
    in_words: AnswerScores | None
    prior: AnswerScores
    other_image: AnswerScores
    chance: dict[str, float]
    bad: list[BadImage] = field(default_factory=list)

    def to_markdown(self) -> str:
        """A table of accuracies (F1 for captions), one of POPE's metrics, one of captions; then how it was measured."""
        told = {} if self.in_words is None else {"model, told in words": self.in_words}
        ways = {"model": self.model, **told, "blind prior": self.prior, "model, another image": self.other_image}
        rows = [
            [group, f"{count:,}", *(_share(way.accuracy[group]) for way in ways.values()), percent(self.chance[group])]
            for group, count in self.questions.items()
        ]
        captions = {name: way.captions for name, way in ways.items() if way.captions is not None}
        if captions:
            count = next(iter(captions.values())).captions
            cells = ["" if way.captions is None else percent(way.captions.f1) for way in ways.values()]
            rows.append(["captions, F1 of concepts", f"{count:,}", *cells, ""])
        parts = [table(["", "n", *ways, "chance"], rows)]
        existence = [
            [
                name,
                group,
                _share(each.accuracy),
                *map(percent, (each.precision, each.recall, each.f1, each.yes)),
                f"{each.other:,}",
            ]
            for name, way in ways.items()
            for group, each in way.existence.items()
        ]
        if existence:
            head = ["", "questions", "accuracy", "precision", "recall", "F1", "yes", "neither yes nor no"]
            parts.append(table(head, existence))
        if captions:
            cells = [
                [name, *map(_share, (each.precision, each.recall)), percent(each.f1), _share(each.numbers)]
                for name, each in captions.items()
            ]
            parts.append(table(["captions", "precision", "recall", "F1", "right numbers"], cells))
        return "\n\n".join([*parts, "\n".join(f"* {line}" for line in self._protocol())]) + "\n"

    def _protocol(self) -> list[str]:
        lines = [
            f"{self.scenes:,} scenes with objects or questions; answers are generated greedily and must match exactly, "
            "except for case and a final full stop; ± is one binomial standard error.",
            "Blind prior: the most frequent answer of the training questions about the same concept or of the same form; as a "
            "caption the most frequent concepts, the same for all images.",
            "Another image: the model is shown another scene. Chance: sampled uniformly from the answers in training.",
        ]
        if self.in_words is not None:
            lines.append("Told in words: the captions of the scene take the place of its image.")
        if self.model.captions is not None:
            lines.append(
                "Captions: concepts named before 'in front of' against those of the scene's objects; right numbers: share "
                "of the concepts correctly named with a number."
            )
        if self.bad:
            lines.append(
                f"{len(self.bad):,} scenes are left out, their images cannot be read; the first: {self.bad[0].reason}"
            )
        return lines


def understand(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    folder: str | os.PathLike[str],
    *,
    train_folder: str | os.PathLike[str],
    limit: int | None = None,
    batch_size: int = 64,
    projector: ContinuousProjector | None = None,
    progress: Progress | None = None,
) -> UnderstandingReport:
    """Ask a model all questions about scenes and let it caption them.

    Args:
        model: in eval mode, with the encoder side of its image tokenizer.
        processor: the model's own.
        folder: folder of webdataset tars of scenes, as ``semhitok data scenes`` writes them.
        train_folder: the training scenes; the blind prior is learned from the first ``PRIOR_SCENES`` of them.
        limit: number of scenes from the first on; None for all. Whole tars keep the questions balanced.
        batch_size: images, or prompts, per batch.
        projector: for a model trained on the teacher's continuous features in place of ids.
        progress: called after every batch.

    Raises:
        ValueError: a folder without scenes or questions, limit or batch_size below 1, kinds of questions that training has
            none of, or a model without the encoder side of its tokenizer.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    report = progress or (lambda what, done, total: None)
    size = processor.image_processor.size
    reader, scenes, found, read = AskedScenes(folder, size, limit=limit, batch_size=batch_size), [], [], 0
    for images, batch in reader:
        read += len(batch)
        report("scenes", read, len(reader))
        asked = [index for index, scene in enumerate(batch) if scene.concepts or scene.questions]
        if asked:
            scenes += [batch[index] for index in asked]
            found.append(_seen(model, processor, projector, list(images[asked])))
    if not any(scene.questions for scene in scenes):
        raise ValueError(f"{folder}: no scene has questions (qa) in the JSON beside its image; scenes are needed")
    seen, others = torch.cat(found), other_scenes(len(scenes))
    exam = _Exam(scenes, _prior(train_folder, size, report))
    ask = partial(exam.ask, model, processor, batch_size=batch_size, projector=projector, report=report)
    groups = exam.groups()
    return UnderstandingReport(
        fingerprint=reader.source.fingerprint,
        scenes=len(scenes),
        questions={group: len(members) for group, members in groups.items()},
        model=ask(seen, where=""),
        in_words=exam.tell(model, processor, batch_size=batch_size, report=report),
        prior=exam.blind(),
        other_image=ask(seen[others], where=", another image"),
        chance={group: exam.prior.chance(members) for group, members in groups.items()},
        bad=list(reader.bad),
    )


class _Exam:
    """The questions and captions of scenes, to be answered several ways."""

    def __init__(self, scenes: Sequence[AskedScene], prior: Prior) -> None:
        self.prior = prior
        self._questions = [question for scene in scenes for question in scene.questions]
        self._asked = [index for index, scene in enumerate(scenes) for _ in scene.questions]
        self._told = [scene.description for scene in scenes for _ in scene.questions]
        self._described = [index for index, scene in enumerate(scenes) if scene.concepts]
        self._shown = [scenes[index].concepts for index in self._described]
        self._finder = ConceptFinder(prior.concepts.union(*self._shown))

    def groups(self) -> dict[str, list[Question]]:
        """The questions of each group, in the order of ``GROUPS``."""
        found = {group: [each for each in self._questions if group in groups_of(each)] for group in GROUPS}
        return {group: members for group, members in found.items() if members}

    def ask(
        self,
        model: SemHiTokForConditionalGeneration,
        processor: SemHiTokMLLMProcessor,
        seen: Tensor,
        *,
        batch_size: int,
        projector: ContinuousProjector | None,
        where: str,
        report: Progress,
    ) -> AnswerScores:
        """The model's answers about each scene's ids or pixels, see ``answer_questions``."""
        texts = [question.question for question in self._questions]
        options: dict[str, Any] = {"batch_size": batch_size, "projector": projector}
        told = partial(report, f"answers{where}")
        answers = answer_questions(model, processor, seen[self._asked], texts, progress=told, **options)
        told = partial(report, f"captions{where}")
        captions = caption_images(model, processor, seen[self._described], progress=told, **options)
        named = [self._finder.named(normalised(each)) for each in captions]
        return self._scores([normalised(each) for each in answers], named)

    def tell(
        self,
        model: SemHiTokForConditionalGeneration,
        processor: SemHiTokMLLMProcessor,
        *,
        batch_size: int,
        report: Progress,
    ) -> AnswerScores | None:
        """The model's answers from the captions of each scene; None if a scene has none, or more than fit into the context."""
        if not all(self._told):
            return None
        texts = [question.question for question in self._questions]
        told = partial(report, "answers, told in words")
        answers = answer_from_captions(model, processor, self._told, texts, batch_size=batch_size, progress=told)
        return None if answers is None else self._scores([normalised(each) for each in answers], None)

    def blind(self) -> AnswerScores:
        """The answers of the blind prior."""
        named = dict.fromkeys(self.prior.caption_concepts())
        return self._scores([self.prior.answer(each) for each in self._questions], [named] * len(self._shown))

    def _scores(self, answers: Sequence[str], named: Sequence[Named] | None) -> AnswerScores:
        return AnswerScores(
            accuracy=accuracies(self._questions, answers),
            existence=existence_scores(self._questions, answers),
            captions=CaptionScores.of(named, self._shown) if self._shown and named is not None else None,
        )


def _seen(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    projector: ContinuousProjector | None,
    images: list[Any],
) -> Tensor:
    """The model inputs of images: ids, or with a projector pixel values."""
    if projector is None:
        return tokenize_images(model, processor, images, batch_size=len(images))
    return processor.image_processor(images)["pixel_values"]


def _prior(folder: str | os.PathLike[str], size: int, report: Progress) -> Prior:
    scenes, reader = [], AskedScenes(folder, size, limit=PRIOR_SCENES)
    for _, batch in reader:
        scenes += batch
        report("training questions", len(scenes), len(reader))
    return Prior(scenes)


def _share(share: Share) -> str:
    return f"{100 * share.share:.1f} ± {100 * share.standard_error:.1f} %" if share.total else ""
