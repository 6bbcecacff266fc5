"""Campaign: conversations made of control tokens and their pieces, over every kind of text tokenizer and template.

For each conversation: no control token but the template's is in its ids, only parts of messages are images, each answer is learned
after exactly the ids from which it is generated, and a byte-level text tokenizer decodes to what the template wrote.

    python benchmarks/hostile_chats.py --chats 20000
"""

from __future__ import annotations

import argparse
import random
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # the text tokenizers of the tests

from tests.mllm.text_tokenizers import KINDS, TEMPLATES, made

from semhitok.data.packing import IGNORED
from semhitok.data.records import Picture, Record, Turn
from semhitok.mllm import SemHiTokMLLMProcessor
from semhitok.mllm.sequences import SequenceBuilder
from semhitok.tokenizers import TokenizerImageProcessor

IMAGE_TOKENS, TEXT_SIZE, CONTEXT = 4, 1000, 100_000
SPAN = IMAGE_TOKENS + 2
PICTURE = Picture("p", ids=np.arange(IMAGE_TOKENS), tokenizer="ours")
WORDS = (
    "a",
    " cat",
    "what is there",
    "\n",
    "  ",
    "<",
    "|",
    ">",
    "[",
    "</",
    "<image>",
    "ä",
    "\U0001f600",
    "</think>\n",
    "assistant",
)


def main() -> None:
    """Run the campaign and print what was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{campaign(options.chats, options.seed):,} answers of {options.chats:,} conversations were checked")


def campaign(chats: int, seed: int) -> int:
    """Check conversations; returns the number of their answers.

    Raises:
        AssertionError: the first thing that is wrong.
    """
    draw = random.Random(seed)
    builders = {(kind, name): _builder(kind, template) for kind in KINDS for name, template in TEMPLATES.items()}
    answers = 0
    for number in range(chats):
        kind, name = draw.choice(list(builders))
        talk = conversation(draw, [*made(kind).all_special_tokens, "<think>", "<|im_start|>"])
        answers += check(builders[kind, name], kind, name, talk, f"conversation {number} of seed {seed}: {talk}")
    return answers


def conversation(draw: random.Random, names: list[str]) -> tuple[Turn, ...]:
    """One to three exchanges, with images among the pieces of what users say."""

    def text() -> str:
        name = draw.choice(names)
        cut = draw.randrange(len(name) + 1)
        pieces = [name, name[:cut], name[cut:], *draw.choices(WORDS, k=3), name[:cut] + draw.choice(names) + name[cut:]]
        return "".join(draw.choices(pieces, k=draw.randrange(1, 6))) + draw.choice(("", "x"))

    turns = [Turn.of("system", [f"s{text()}"])] if draw.random() < 0.3 else []
    for _ in range(draw.randrange(1, 4)):
        asked = [text() for _ in range(draw.choice((1, 1, 2, 3)))]
        turns += [Turn.of("user", [f"q{asked[0]}", *asked[1:]]), Turn.of("assistant", [f"a{text()}"])]
    return tuple(turns)


def check(build: SequenceBuilder, kind: str, template: str, turns: tuple[Turn, ...], said: str) -> int:
    """Check one conversation; returns the number of its answers."""
    processor = build.processor
    tokenizer: Any = made(kind)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    images = sum(len(turn.pieces) - 1 for turn in turns)
    plain = tuple(Turn.of(turn.role, ["a", *["a"] * (len(turn.pieces) - 1)]) for turn in turns)
    sequences, harmless = (
        build(Record("chat", "r", turns=each, pictures=(PICTURE,) * images), 0.5) for each in (turns, plain)
    )
    controls, wanted = (
        [each for each in found[-1].ids_L.tolist() if each in special] for found in (sequences, harmless)
    )
    assert controls == wanted, said
    assert sequences[-1].ids_L.tolist().count(processor.vocabulary.placeholder_id) == images * IMAGE_TOKENS, said
    ends = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    begins = [
        sequence.ids_L[:place].tolist()
        for sequence in sequences
        for place in range(1, len(sequence))
        if sequence.labels_L[place] != IGNORED and sequence.labels_L[place - 1] == IGNORED
    ]
    assert begins == [_ids(processor, turns[:end], ask=True) for end in ends], said
    if kind in ("byte-level", "learned"):
        parts = groupby(sequences[-1].ids_L.tolist(), TEXT_SIZE.__gt__)
        texts = [tokenizer.decode(list(ids)) if text else "<image>" * (len(list(ids)) // SPAN) for text, ids in parts]
        assert "".join(texts) == processor.apply_chat_template(_messages(turns)), said
    return len(ends)


def _builder(kind: str, template: str | None) -> SequenceBuilder:
    processor = SemHiTokMLLMProcessor(
        TokenizerImageProcessor(size=32),
        made(kind),
        text_size=TEXT_SIZE,
        visual_size=8,
        image_tokens=IMAGE_TOKENS,
        context_length=CONTEXT,
        chat_template=template,
    )
    return SequenceBuilder(processor, learn="answers", unconditional=0, max_length=CONTEXT, tokenizer="ours")


def _messages(turns: tuple[Turn, ...]) -> list[dict]:
    def parts(turn: Turn) -> list[dict]:
        first, *others = turn.pieces
        pieces = [[{"type": "image"}, {"type": "text", "text": piece}] for piece in others]
        return [{"type": "text", "text": first}, *(part for pair in pieces for part in pair)]

    return [{"role": turn.role, "content": parts(turn)} for turn in turns]


def _ids(processor: SemHiTokMLLMProcessor, turns: tuple[Turn, ...], *, ask: bool) -> list[int]:
    shown = processor.apply_chat_template(_messages(turns), add_generation_prompt=ask)
    return processor.token_ids(shown, add_special_tokens=False)


if __name__ == "__main__":
    main()
