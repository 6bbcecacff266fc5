"""What a model card says about one kind of tokenizer: SemHiTok or UniTok."""

from __future__ import annotations

from dataclasses import dataclass

from semhitok.metrics.rate import tokenizer_bits
from semhitok.tokenizers import SemHiTokConfig, SemHiTokModel, UniTokModel
from semhitok.tokenizers.loading import Tokenizer
from semhitok.tokenizers.settings import parameters_of
from semhitok.types import STAGES, UNITOK_STAGE

BUILT_IN_BACKBONE = "efficientnet_lite"


@dataclass(frozen=True)
class CardFacts:
    """What differs between the kinds.

    Attributes:
        name: of the kind.
        paper: where it is described.
        tokens: what an image becomes, as in "64 tokens out of 8,192".
        stages: names of its trainings, in order.
        use: lines of Python after model, images and ids are there.
        rows: of the table of facts, name and value.
        limits: sentences.
    """

    name: str
    paper: str
    tokens: str
    stages: tuple[str, ...]
    use: list[str]
    rows: list[list[str]]
    limits: list[str]


def card_facts(model: Tokenizer) -> CardFacts:
    """See ``CardFacts``.

    Raises:
        ValueError: the model has no quantizer, so there are no tokens to describe.
    """
    match model:
        case SemHiTokModel():
            return _semhitok(model)
        case UniTokModel():
            return _unitok(model)


def bits_of(model: Tokenizer) -> float:
    """Bits of an image of the default size."""
    return tokenizer_bits(model.num_tokens * model.codes_per_token, model.vocab_size)


def _semhitok(model: SemHiTokModel) -> CardFacts:
    config = model.config
    limits = []
    if config.teacher_config.backbone_config.model_type == BUILT_IN_BACKBONE:
        limits.append(
            "The teacher learned ImageNet's classes and no language: semantic codes know less of the world than those of "
            "a text-aligned teacher such as the paper's SigLIP."
        )
    return CardFacts(
        name="SemHiTok",
        paper="arXiv 2503.06764",
        tokens=f"{model.num_tokens:,} tokens out of {model.vocab_size:,}",
        stages=STAGES,
        use=[],
        rows=[
            ["semantic codes", f"{config.semantic_codebook_size:,} of {config.semantic_dim} channels"],
            ["pixel codes under each", f"{_sizes(config)} of {config.pixel_dim} channels"],
            ["patch", f"{config.patch_size} x {config.patch_size} pixels"],
            ["teacher", _teacher(model)],
            ["parameters", _parameters(model)],
        ],
        limits=[
            *limits,
            f"Made for {config.image_size} x {config.image_size} pixels; other sizes work but were not trained.",
        ],
    )


def _unitok(model: UniTokModel) -> CardFacts:
    config = model.config
    if config.quantizer == "none":
        raise ValueError("a model with continuous features (quantizer none) is no tokenizer to share")
    quantizer = {"multi_codebook": "codebooks", "residual": "residual depths of one codebook"}[config.quantizer]
    rows = [
        ["codes per token", f"{config.num_codebooks} {quantizer}"],
        ["codes of each", f"{config.codebook_size:,}; {config.width} channels per token"],
        ["projection to these channels", config.projection],
        ["patch", f"{config.patch_size} x {config.patch_size} pixels"],
    ]
    use, limits = [], []
    text = config.text_config
    if text is None:
        rows.append(["text tower", "none"])
    else:
        rows.append(
            ["text tower", f"{text.num_hidden_layers} layers of {text.hidden_size}, {text.vocab_size:,} text ids"]
        )
        use = [
            'texts = UniTokProcessor.from_pretrained("NAME")(text=["a horse", "an owl"])',
            f"likeness = model.image_embedding(images) @ model.text_embedding(**texts).T  # (1, 2), {config.embed_dim}-d",
        ]
        limits.append("The text tower knows the words of its training captions, in English.")
    return CardFacts(
        name="UniTok",
        paper="arXiv 2502.20321",
        tokens=f"{model.num_tokens:,} tokens of {model.codes_per_token} codes out of {model.vocab_size:,} each",
        stages=(UNITOK_STAGE,),
        use=use,
        rows=[*rows, ["parameters", _parameters(model)]],
        limits=[
            *limits,
            f"Made for {config.image_size} x {config.image_size} pixels; other multiples of {config.patch_size} work but "
            "were not trained.",
        ],
    )


def _parameters(model: Tokenizer) -> str:
    parts = parameters_of(model)
    every = parts.pop("all")
    return f"{every:,}: " + ", ".join(f"{part.replace('_', ' ')} {number:,}" for part, number in parts.items())


def _sizes(config: SemHiTokConfig) -> str:
    if config.subcodebook_sizes is None:
        return f"{config.subcodebook_size:,}"
    return f"{min(config.subcodebook_sizes):,} to {max(config.subcodebook_sizes):,}"


def _teacher(model: SemHiTokModel) -> str:
    teacher = model.config.teacher_config
    kind = teacher.backbone_config.model_type
    if kind == BUILT_IN_BACKBONE:
        kind = "EfficientNet-Lite0 (Tan and Le, 2019; trained on ImageNet; Apache-2.0), its stride-16 grid"
    return f"{kind}, fed {teacher.image_size} px, frozen"
