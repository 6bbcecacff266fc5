"""Images from prompts and seeds, whole or row by row.

Shapes: B prompts, N tokens of one image, C codes per token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor, nn

from semhitok.mllm import Sampling, SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from semhitok.mllm.prompts import check_guidance


class ImageGenerator:
    """Generates images; each depends on its own prompt and seed alone, whatever the batch.

    (Unless a random number falls within rounding error of the border between two tokens.)

    Args:
        model, processor: as ``load_language_model`` gives them; the encoder side of the image tokenizer is not needed.
        guidance: classifier-free guidance, above 0; 1 is none.
        sampling: temperature, top_k and top_p; its seed is not used.

    Raises:
        ValueError: guidance of 0 or less.
    """

    def __init__(
        self,
        model: SemHiTokForConditionalGeneration,
        processor: SemHiTokMLLMProcessor,
        guidance: float = 3.0,
        sampling: Sampling | None = None,
    ) -> None:
        check_guidance(guidance)
        self.model, self.processor = model, processor
        self.guidance, self.sampling = guidance, sampling or Sampling()

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """An image for each prompt and its seed; all are generated at once.

        Args:
            prompts: see ``check``.
            seeds: as many.

        Raises:
            ValueError: prompts and seeds differ in number, or a prompt cannot be drawn from.
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
        """The images after each row of tokens, grey where there are none yet; arguments and errors as for a call.

        Prompts whose seeds do not count up come one after the other: the list is shorter than the prompts until it is the
        turn of the last ones. The last list is what a call returns.
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
        """Refuse prompts that cannot be drawn from, before anything is drawn.

        Args:
            prompts: what an error calls each, and its text.

        Raises:
            ValueError: for the first that is empty, has an image in it, or leaves no room for one in the context.
        """
        room = self.processor.context_length - self.processor.image_tokens
        for name, text in prompts:
            try:
                inputs = self.processor(text=text, generation_mode="image", return_tensors=None)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            length = len(inputs["input_ids"][0])
            if length > room:
                raise ValueError(
                    f"{name} has {length} tokens, but the context of {self.processor.context_length} leaves {room} beside the "
                    "image"
                )

    def _runs(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[list[str], Sampling]]:
        """What is generated at once: seeds that count up."""
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(f"each prompt needs its seed, got {len(prompts)} prompts and {len(seeds)} seeds")
        for begin, end in stretches(seeds):
            yield list(prompts[begin:end]), replace(self.sampling, seed=seeds[begin])

    def _inputs(self, prompts: list[str]) -> dict[str, Tensor]:
        return dict(self.processor(text=prompts, generation_mode="image").to(self.model.device))

    @torch.no_grad()
    def _decoded(self, ids: Tensor) -> list[Image.Image]:
        """One by one: in batches of other sizes single pixels are rounded the other way."""
        return [image for own in ids.split(1) for image in self._pictures(self.model.decode_image_tokens(own))]

    def _pictures(self, pixel_values: Tensor) -> list[Image.Image]:
        return self.processor.post_process_multimodal_output(pixel_values, generation_mode="image")


def stretches(seeds: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Begin and end of the longest stretches of seeds that count up by one, as ``Sampling`` has those of a batch."""
    begin = 0
    for end in range(1, len(seeds) + 1):
        if end == len(seeds) or seeds[end] != seeds[end - 1] + 1:
            yield begin, end
            begin = end


def weights_digest(model: nn.Module) -> str:
    """Hex digest of names and values of all tensors: which model drew the images, wherever it lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
