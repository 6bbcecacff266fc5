"""A loaded model as a server needs it: inputs are prepared in any thread, the model works in one.

Shapes: L positions, I images of C = 3 channels and S x S pixels, N tokens of one image, C codes per token.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from semhitok.data.images import load_image
from semhitok.data.transforms import fit_image, to_pil
from semhitok.inference.answer_text import AnswerText
from semhitok.inference.loading import find_model, load_language_model, load_tokenizer
from semhitok.inference.text_generation import AnswerOptions, room_of
from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.running_batch import Generation, RunningBatch
from semhitok.tokenizers import TokenizerImageProcessor
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.types import FitMode


@dataclass(frozen=True)
class Prompt:
    """A conversation as ids.

    Attributes:
        ids: (L,) with placeholders for images.
        pixel_values: (I,3,S,S) in [-1,1].
    """

    ids: Tensor
    pixel_values: Tensor


class ServedModel:
    """A language model with its image tokenizer, or an image tokenizer alone.

    Args:
        tokenizer: the image tokenizer.
        language: model and processor, if there is a language model; the tokenizer is the model's own.
        max_pixels: images with more pixels are rejected before they are decoded.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        language: tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor] | None = None,
        *,
        max_pixels: int,
    ) -> None:
        self.tokenizer, self.language, self.max_pixels = tokenizer, language, max_pixels
        self._image_processor = TokenizerImageProcessor(size=self.image_size)
        # Text tokenizers do not bear encoding in one thread while another one decodes.
        self._text = threading.Lock()

    @classmethod
    def load(cls, name: str | Path, device: str | None = None, *, max_pixels: int) -> ServedModel:
        """Load a language model or an image tokenizer; arguments and errors as in ``loading``."""
        place, is_language = find_model(name)
        if not is_language:
            return cls(load_tokenizer(place, device), max_pixels=max_pixels)
        model, processor = load_language_model(place, device)
        return cls(model.image_tokenizer, (model, processor), max_pixels=max_pixels)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.tokenizer.config.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of an image."""
        return self.tokenizer.config.grid(self.image_size, self.image_size)

    @property
    def context_length(self) -> int:
        """Positions of the language model."""
        return self._loaded[0].config.context_length

    @property
    def image_tokens(self) -> int:
        """N."""
        return self.tokenizer.num_tokens

    def read_image(self, data: bytes, name: str) -> Image.Image:
        """Decode the bytes of an image file; raises ``ImageError``, which begins with the name."""
        return load_image(data, name=name, max_pixels=self.max_pixels)

    def square(self, image: Image.Image) -> Image.Image:
        """The part of an image that a conversation shows to the model, at the size at which it is tokenized."""
        return fit_image(image, self.image_size, self.image_size)

    def pixel_values(self, image: Image.Image, fit: FitMode) -> Tensor:
        """(3,S,S) in [-1,1]."""
        return self._image_processor([image], mode=fit)["pixel_values"][0]

    @torch.inference_mode()
    def encode(self, pixel_values: Sequence[Tensor]) -> Tensor:
        """Images (3,S,S) to ids (I,N) or (I,N,C) on the CPU."""
        batch = torch.stack(list(pixel_values)).to(self.tokenizer.device, self.tokenizer.dtype)
        return self.tokenizer.encode(batch).ids.cpu()

    @torch.inference_mode()
    def decode(self, ids: Tensor, grid: tuple[int, int] | None = None) -> Image.Image:
        """Ids (N) or (N,C) of one image; several at once would round single pixels differently."""
        return to_pil(self.tokenizer.decode(ids[None].to(self.tokenizer.device), grid)[0])

    def check_ids(self, ids: Tensor, grid: tuple[int, int] | None) -> None:
        """Reject ids (I,N) or (I,N,C) that the tokenizer cannot decode.

        Raises:
            ValueError: they have another shape or are outside the vocabulary, or the grid does not fit.
        """
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(f"ids must be whole numbers, got {ids.dtype}")
        codes, size = self.tokenizer.codes_per_token, self.tokenizer.vocab_size
        shape = "(images, tokens)" if codes == 1 else f"(images, tokens, {codes})"
        if ids.ndim != (2 if codes == 1 else 3) or (codes > 1 and ids.shape[-1] != codes) or not ids.numel():
            raise ValueError(f"ids must have the shape {shape}, got {tuple(ids.shape)}")
        if not 0 <= int(ids.min()) <= int(ids.max()) < size:
            worst = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise ValueError(f"ids must lie in [0, {size}), got {worst}")
        rows, columns = grid or self.grid
        if rows * columns != ids.shape[1]:
            raise ValueError(f"{ids.shape[1]} tokens do not fill a grid of {rows}x{columns}")

    def chat_prompt(self, messages: Sequence[dict[str, Any]]) -> Prompt:
        """A conversation that the model is to continue; contents as in ``SemHiTokMLLMProcessor.apply_chat_template``.

        Raises:
            ValueError: it is too long, or a text cannot be used.
        """
        with self._text:
            inputs = self._loaded[1].apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True
            )
        ids = inputs["input_ids"][0]
        room = self.context_length - 1
        if len(ids) > room:
            raise ValueError(
                f"the conversation has {len(ids)} tokens, but the context of {self.context_length} leaves {room} beside an "
                "answer"
            )
        size = self.image_size
        return Prompt(ids, inputs.get("pixel_values", torch.zeros(0, 3, size, size)))

    def answer(
        self,
        prompt: Prompt,
        image_ids: Tensor,
        options: AnswerOptions,
        *,
        seed: int,
        stream: bool,
    ) -> tuple[Generation, AnswerText]:
        """The answer to a conversation, to be generated in a ``RunningBatch``.

        Args:
            prompt: from ``chat_prompt``.
            image_ids: (I,N) or (I,N,C) from ``encode``.
            options: without beams and penalties.
            seed: of sampling.
            stream: whether the text is needed piece by piece.

        Raises:
            ValueError: see ``Generation.check``.
        """
        model, _ = self._loaded
        ids_1L, codes = prompt.ids[None], None
        if len(image_ids):
            ids_1L, codes = model.vocabulary.place_image_ids(ids_1L, image_ids)
        text = AnswerText(self._decode_text, options.stops)
        greedy = options.temperature == 0 or options.top_p == 0
        sampling = Sampling(0.0 if greedy else options.temperature, options.top_k, options.top_p or 1.0, seed)
        generation = Generation(
            ids_1L[0],
            room_of(model, len(prompt.ids), options),
            codes=None if codes is None else codes[0],
            sampling=sampling,
            ends=_end_ids(model),
            stop=text.read if options.stops or stream else None,
        )
        generation.check(model.vocabulary, self.context_length)
        return generation, text

    def image(
        self, prompt: str, *, seed: int, guidance: float | None, temperature: float, top_k: int | None, top_p: float
    ) -> Generation:
        """An image from a prompt, in which nothing is a control token, to be generated in a ``RunningBatch``.

        Without ``guidance`` or ``top_k`` the model's own are used.

        Raises:
            ValueError: the prompt is empty or too long, or guidance is 0 or less.
        """
        model, processor = self._loaded
        with self._text:
            ids = processor(text=prompt, generation_mode="image", split_special_tokens=True)["input_ids"][0]
        sampling = Sampling(temperature, model.config.image_top_k if top_k is None else top_k, top_p, seed)
        guidance = model.config.image_guidance if guidance is None else guidance
        generation = Generation(ids, self.image_tokens, image=True, sampling=sampling, guidance=guidance)
        generation.check(model.vocabulary, self.context_length)
        return generation

    def batch(self, rows: int) -> RunningBatch:
        """A running batch for answers and images."""
        return RunningBatch(self._loaded[0], rows=rows)

    @property
    def _loaded(self) -> tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor]:
        assert self.language is not None, "an image tokenizer has no texts"
        return self.language

    def _decode_text(self, ids: list[int]) -> str:
        with self._text:
            return self._loaded[1].tokenizer.decode(ids, skip_special_tokens=True)


def _end_ids(model: SemHiTokForConditionalGeneration) -> frozenset[int]:
    """Ids that end a text, from the model's generation configuration."""
    end = None if model.generation_config is None else model.generation_config.eos_token_id
    return frozenset([] if end is None else [end] if isinstance(end, int) else end)
