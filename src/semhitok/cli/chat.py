"""``semhitok chat``: questions about images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image
from transformers import TextStreamer

from semhitok.cli.arguments import Checkpoint, Count, Device, UsageError
from semhitok.data.images import load_image
from semhitok.data.records import IMAGE
from semhitok.inference.language_loading import SHIPPED_LANGUAGE_MODEL, load_language_model
from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor

SWITCH = "/image"


@dataclass(frozen=True)
class Arguments:
    """Ask a language model about an image, or about several.

    Without a question it is a conversation: each line of standard input is a question that may refer to the ones before,
    "/image PATH" goes over to another image and begins anew, and an empty line or the end of the input is the end.
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Image file."""
    question: Annotated[
        str | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="QUESTION", help_behavior_hint="(default: a conversation)"),
    ] = None
    """What to ask."""
    more_images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE ...", help_behavior_hint="")] = ()
    """Further images, shown after the first; to be written after the question."""
    model: Checkpoint = SHIPPED_LANGUAGE_MODEL
    """A folder of a model or of a training run, a hub id, or the name of a shipped checkpoint."""
    max_new_tokens: Count = 128
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 always takes the most likely token; 1 draws from the model's own distribution."""
    top_p: float = 1.0
    """With a temperature above 0: the share of probability that is drawn from."""
    seed: int = 0
    """With a temperature above 0: of the random numbers."""
    device: Device = None
    """cpu, cuda, cuda:1 ..."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok chat")
    if options.question is not None and not options.question.strip():
        raise UsageError("the question is empty; leave it out for a conversation")
    try:
        sampling = Sampling(temperature=options.temperature, top_p=options.top_p, seed=options.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    images = [load_image(path) for path in (options.image, *options.more_images)]
    model, processor = load_language_model(options.model, options.device)
    conversation = Conversation(model, processor, images, options.max_new_tokens, sampling)
    if options.question is not None:
        print(conversation.ask(options.question))
    else:
        _converse(conversation)
    return 0


class Conversation:
    """Questions about images, and the answers so far.

    Args:
        model, processor: as loaded.
        images: shown before the first question, as in training.
        max_new_tokens: of an answer, at most.
        sampling: temperature, top_p and seed of the answers.
    """

    def __init__(
        self,
        model: SemHiTokForConditionalGeneration,
        processor: SemHiTokMLLMProcessor,
        images: Sequence[Image.Image],
        max_new_tokens: int,
        sampling: Sampling,
    ) -> None:
        self.model, self.processor = model, processor
        self.images, self.turns = list(images), list[tuple[str, str]]()
        self.max_new_tokens = max_new_tokens
        self.options: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            self.options = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
        torch.manual_seed(sampling.seed)

    def show(self, images: Sequence[Image.Image]) -> None:
        """Begin anew with other images."""
        self.images, self.turns = list(images), []

    @torch.no_grad()
    def ask(
        self, question: str, *, streamer: TextStreamer | None = None, notice: Callable[[str], None] | None = None
    ) -> str:
        """The answer, which later questions may refer to.

        Args:
            question: without images, which are shown already.
            streamer: gets the answer while it is made.
            notice: told, in a sentence, when the conversation begins anew because it would outgrow the context.

        Raises:
            ValueError: the question is empty, names an image mark, or leaves no room for an answer.
        """
        context = self.processor.context_length
        # A long limit for answers must not make every question the first one: a quarter of the context is room enough.
        room = min(self.max_new_tokens, context // 4)
        if self.turns and self._length(question) + room > context:
            self.turns = []
            if notice is not None:
                notice(
                    f"the conversation would outgrow the context of {context} tokens, it begins anew with this question"
                )
        length = self._length(question)
        if length + 1 > context:
            raise ValueError(
                f"the question and its images have {length} tokens, which leaves no room for an answer in the context of "
                f"{context}"
            )
        inputs = self.processor.apply_chat_template(
            self._messages(question), add_generation_prompt=True, tokenize=True, return_dict=True
        ).to(self.model.device)
        limit = min(self.max_new_tokens, context - length)
        ids = self.model.generate(**inputs, max_new_tokens=limit, streamer=streamer, **self.options)
        answer = self.processor.post_process_image_text_to_text(ids[:, length:])[0].strip()
        self.turns.append((question, answer.replace(IMAGE, "")))  # words, not one more image
        return answer

    def _messages(self, question: str) -> list[dict[str, Any]]:
        turns = [message for asked, answer in self.turns for message in (_user(asked), _assistant(answer))]
        shown = [{"type": "image", "image": image} for image in self.images]
        first, *rest = [*turns, _user(question)]
        return [{**first, "content": [*shown, *first["content"]]}, *rest]

    def _length(self, question: str) -> int:
        """Tokens up to the answer."""
        if not question.strip():
            raise ValueError("the question is empty")
        text = self.processor.apply_chat_template(self._messages(question), add_generation_prompt=True)
        return len(self.processor.token_ids(text, add_special_tokens=False))


class Answer(TextStreamer):
    """Prints an answer word by word, without the blank that some templates leave before it."""

    def __init__(self, text_tokenizer: Any) -> None:
        super().__init__(text_tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        text = text if self.begun else text.lstrip()
        self.begun = self.begun or bool(text)
        super().on_finalized_text(text, stream_end)


def _converse(conversation: Conversation) -> None:
    """Answers to standard output; what is not an answer to standard error, one sentence each."""
    if sys.stdin.isatty():
        _say(f'ask about the image; "{SWITCH} PATH" shows another one, an empty line ends')
    for line in _lines():
        try:
            if line.split()[0] == SWITCH:
                conversation.show([load_image(_path(line))])
            else:
                conversation.ask(line, streamer=Answer(conversation.processor.tokenizer), notice=_say)
        except ValueError as error:
            _say(str(error))


def _lines() -> Iterator[str]:
    """Lines of standard input up to an empty one or its end."""
    sign = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(sign).strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _path(line: str) -> Path:
    name = line.removeprefix(SWITCH).strip()
    if not name:
        raise ValueError(f"{SWITCH} needs the path of an image")
    return Path(name).expanduser()


def _say(sentence: str) -> None:
    print(f"semhitok chat: {sentence}", file=sys.stderr)


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}
