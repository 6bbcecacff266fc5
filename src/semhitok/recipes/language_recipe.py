"""Recipe of the unified language model: its parts, data and stages as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from semhitok.training.loop_config import LoopConfig
from semhitok.training.optim import OptimizerConfig
from semhitok.training.tasks.language_config import LanguageConfig
from semhitok.types import LANGUAGE_STAGES, AdapterKind, FitMode, LanguageStageName, Learn


@dataclass(frozen=True)
class Mix:
    """Relative numbers of records of each kind; 0 omits a kind."""

    text: float = 0.0
    caption: float = 0.0
    text_to_image: float = 0.0
    chat: float = 0.0


@dataclass(frozen=True)
class SmallLanguageModel:
    """A Qwen2-architecture language model from scratch, with a byte-level BPE learned from the training texts.

    Attributes:
        vocab_size: maximum number of ids of the text tokenizer; few texts may give fewer.
        layers, width, heads, key_value_heads, feed_forward: sizes of the transformer.
        context_length: number of positions; rows may not be longer.
        code_head_layers, code_head_width, code_head_heads: the head over the codes of a token, if it has several.
        look_back: start with heads in the first layer that attend to the tokens right before, see ``mllm.look_back``.
        answer_after_space: the chat template writes a space before answers, whose first words are then the same tokens as in the
            middle of a text, and can be copied from there.
    """

    vocab_size: int = 2000
    layers: int = 5
    width: int = 192
    heads: int = 4
    key_value_heads: int = 2
    feed_forward: int = 384
    context_length: int = 512
    code_head_layers: int = 2
    code_head_width: int = 512
    code_head_heads: int = 8
    look_back: bool = False
    answer_after_space: bool = False


@dataclass(frozen=True)
class RecordConfig:
    """How records are read.

    Attributes:
        fit: how images are made square.
        pretokenize: tokenize the images of tars once before training and cache the ids; otherwise, and always for images of
            ``.jsonl`` files, images are tokenized in every step.
        workers: number of reader processes.
        block_rows: number of rows packed together.
        max_bad_share: tolerated fraction of unusable records; they are skipped, counted and reported.
        allow_outside: whether images of ``.jsonl`` files may lie outside the file's folder.
    """

    fit: FitMode = "crop"
    pretokenize: bool = False
    workers: int = 4
    block_rows: int = 64
    max_bad_share: float = 0.05
    allow_outside: bool = False


@dataclass(frozen=True)
class LanguageStage:
    """One stage; its batch size counts rows.

    Attributes:
        loop: settings of the training loop.
        task: what is trained, and how.
        mix: proportions of the records.
        learn: see ``SequenceBuilder``.
        row_length: positions of a packed row.
        unconditional: fraction of image-generation prompts that are dropped.
        described: fraction of chats with captions in place of their image, see ``SequenceBuilder``.
        pairs: in stages without images, the fraction of chats that ask for nothing but the position of one of two things, see
            ``SceneWords``.
    """

    loop: LoopConfig
    task: LanguageConfig
    mix: Mix
    learn: Learn
    row_length: int
    unconditional: float = 0.1
    described: float = 0.0
    pairs: float = 0.4


def words_alone(*, steps: int = 4000, pairs: float = 0.4) -> LanguageStage:
    """A stage of a language model from scratch on chats about scenes in words alone, see ``scenes.words``."""
    optimizer = OptimizerConfig(learning_rate=2e-3, warmup_steps=100, weight_decay=0.05, final_ratio=0.1)
    return LanguageStage(
        loop=LoopConfig(steps=steps, batch_size=8, log_every=50, checkpoint_every=250),
        task=LanguageConfig(optimizer=optimizer, muon=True),
        mix=Mix(chat=1),
        learn="answers",
        row_length=448,
        pairs=pairs,
    )


def relations_first() -> LanguageStage:
    """The stage ``relations``: nothing but positions of pairs, until they are bound to their things."""
    return words_alone(steps=800, pairs=1.0)


def alignment() -> LanguageStage:
    """The stage ``align`` of a language model from scratch, see ``WordAlignmentTask``."""
    optimizer = OptimizerConfig(learning_rate=4e-3, warmup_steps=50, weight_decay=0.0, final_ratio=0.02)
    return LanguageStage(
        loop=LoopConfig(steps=3000, batch_size=24, log_every=50, checkpoint_every=500),
        task=LanguageConfig(optimizer=optimizer),
        mix=Mix(caption=1),
        learn="answers",
        row_length=448,
    )


@dataclass(frozen=True)
class LanguageRecipe:
    """Everything needed to train the unified language model except the data.

    Attributes:
        name: name of the recipe.
        tokenizer: image tokenizer: a bundled name, a folder or a hub id.
        pretrain, sft: the paper's stages.
        relations, words, align: stages before them, if listed in ``stages``; the defaults suit a small language model from scratch.
        stages: stages to run, in order.
        language_model: ``smollm2-135m-instruct`` (from its package), a folder or a hub id; None builds one of ``size``.
        size: used only if ``language_model`` is None.
        chat_template: a file with a chat template in Jinja; None is the text tokenizer's own, or "role: content" line by line.
        adapter: Table 7's variant.
        image_positions: visual embeddings also say where in the image they are, see ``SemHiTokMLLMConfig``.
        continuous: use the teacher's features instead of ids (Table 4's upper bound).
        records: how records are read.
    """

    name: str
    tokenizer: str
    pretrain: LanguageStage
    sft: LanguageStage
    relations: LanguageStage = field(default_factory=relations_first)
    words: LanguageStage = field(default_factory=words_alone)
    align: LanguageStage = field(default_factory=alignment)
    stages: tuple[LanguageStageName, ...] = ("pretrain", "sft")
    language_model: str | None = None
    size: SmallLanguageModel = field(default_factory=SmallLanguageModel)
    chat_template: str | None = None
    adapter: AdapterKind = "dual"
    image_positions: bool = False
    continuous: bool = False
    records: RecordConfig = field(default_factory=RecordConfig)

    def stage(self, name: LanguageStageName) -> LanguageStage:
        """A stage by its name."""
        return {
            "relations": self.relations,
            "words": self.words,
            "align": self.align,
            "pretrain": self.pretrain,
            "sft": self.sft,
        }[name]

    def with_loop(self, stage: LanguageStageName, **changes: Any) -> LanguageRecipe:
        """The recipe with changed loop settings of one stage."""
        part = self.stage(stage)
        return replace(self, **{stage: replace(part, loop=replace(part.loop, **changes))})

    def before(self, name: LanguageStageName) -> LanguageStageName | None:
        """The stage that another one starts from; None if it starts from the recipe's own parts."""
        earlier: tuple[LanguageStageName, ...] = LANGUAGE_STAGES[: LANGUAGE_STAGES.index(name)]
        return next((stage for stage in reversed(earlier) if stage in self.stages), None)
