"""Images from prompts and seeds, whole or row by row.

Shapes: B prompts, N tokens of one image, C codes per token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BatchFeature

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.prompts import check_guidance


class ImageGenerator:
    """Generates images; each depends on its own prompt and seed alone, whatever the batch.

    (Unless a random number falls within rounding error of the border between two tokens.)

    Args:
        model, processor: from ``load_language_model``; the encoder side of the image tokenizer is not needed.
        guidance: scale of classifier-free guidance, above 0; 1 disables it; by default the model's own ``image_guidance``.
        sampling: temperature, top_k and top_p; its seed is not used. By default temperature 1 and the model's own
            ``image_top_k``.

    Raises:
        ValueError: guidance of 0 or less.
    """

    def __init__(
        self,
        model: SemHiTokForConditionalGeneration,
        processor: SemHiTokMLLMProcessor,
        guidance: float | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        check_guidance(guidance)
        self.model, self.processor = model, processor
        self.guidance = model.config.image_guidance if guidance is None else guidance
        self.sampling = sampling or Sampling(top_k=model.config.image_top_k)

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Generate an image for each prompt and its seed, all in one batch.

        Args:
            prompts: see ``check``.
            seeds: one for each prompt.

        Raises:
            ValueError: prompts and seeds differ in number, or a prompt is unusable.
        """
        return self._decoded(self.ids(prompts, seeds))

    @torch.no_grad()
    def ids(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Token ids of the images, (B,N) or (B,N,C); arguments and errors as for a call."""
        return torch.cat(
            [
                self.model.generate_images(**self._inputs(part), guidance=self.guidance, sampling=sampling)
                for part, sampling in self._runs(prompts, seeds)
            ]
        )

    @torch.no_grad()
    def stream(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[list[Image.Image]]:
        """The images after each row of tokens, grey where nothing is generated yet; arguments and errors as for a call.

        Prompts whose seeds are not consecutive are generated one after the other: the list is shorter than the prompts
        until the last ones are reached. The last list equals the result of a call.
        """
        finished: list[Image.Image] = []
        for part, sampling in self._runs(prompts, seeds):
            inputs, images = self._inputs(part), []
            for ids in self.model.stream_images(**inputs, guidance=self.guidance, sampling=sampling):
                complete = ids.shape[1] == self.model.vocabulary.image_tokens
                images = self._decoded(ids) if complete else self._pictures(self.model.decode_partial(ids))
                yield [*finished, *images]
            finished += images

    def check(self, prompts: Iterable[tuple[str, str]]) -> None:
        """Reject unusable prompts before anything is generated.

        Args:
            prompts: for each the name that an error uses, and the text.

        Raises:
            ValueError: for the first prompt that is empty or leaves no room for one in the context.
        """
        room = self.processor.context_length - self.processor.image_tokens
        for name, text in prompts:
            try:
                inputs = self._processed([text], return_tensors=None)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            length = len(inputs["input_ids"][0])
            if length > room:
                raise ValueError(
                    f"{name} has {length} tokens, but the context of {self.processor.context_length} leaves {room} beside the "
                    "image"
                )

    def _runs(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[list[str], Sampling]]:
        """Prompts that are generated together: those with consecutive seeds."""
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(f"each prompt needs its seed, got {len(prompts)} prompts and {len(seeds)} seeds")
        for begin, end in stretches(seeds):
            yield list(prompts[begin:end]), replace(self.sampling, seed=seeds[begin])

    def _inputs(self, prompts: list[str]) -> dict[str, Tensor]:
        return dict(self._processed(prompts).to(self.model.device))

    def _processed(self, prompts: list[str], **options: Any) -> BatchFeature:
        """Inputs of prompts, in which nothing is an image or a control token."""
        return self.processor(text=prompts, generation_mode="image", split_special_tokens=True, **options)

    @torch.no_grad()
    def _decoded(self, ids: Tensor) -> list[Image.Image]:
        """Decode one by one, because the batch size can change the rounding of single pixels."""
        return [image for own in ids.split(1) for image in self._pictures(self.model.decode_image_tokens(own))]

    def _pictures(self, pixel_values: Tensor) -> list[Image.Image]:
        return self.processor.post_process_multimodal_output(pixel_values, generation_mode="image")


def stretches(seeds: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each longest run of consecutive seeds, which is what ``Sampling`` uses for a batch."""
    begin = 0
    for end in range(1, len(seeds) + 1):
        if end == len(seeds) or seeds[end] != seeds[end - 1] + 1:
            yield begin, end
            begin = end


def weights_digest(model: nn.Module) -> str:
    """Hex digest of the names and values of all tensors: identifies a model, wherever it is stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
