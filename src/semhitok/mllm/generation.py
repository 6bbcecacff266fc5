"""Generation of text and images with transformers' ``generate``, and faster generation of images with our own loop.

``generate`` checks and completes the prompts and masks invalid ids (see ``legal_ids.py``); the loop of ``generate_images`` is in
``image_generation.py``.

Shapes: B sequences, L positions, N tokens of one image, C codes per token, S steps, R rows of scores, V ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationMixin

from semhitok.mllm.generation_options import find_option, image_options, options_of_several_codes, text_options
from semhitok.mllm.image_generation import ImageTextModel, stream_tokens
from semhitok.mllm.image_positions import note_tokens, tokens_at_end
from semhitok.mllm.legal_ids import GenerationMode
from semhitok.mllm.prompts import check_guidance, check_prompt, with_begin
from semhitok.mllm.sampling import Sampling

GREY = 0.0


class ImageTextGenerationMixin(GenerationMixin):
    """Generation methods for models that implement ``ImageTextModel``."""

    @torch.no_grad()
    def generate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self: ImageTextModel,
        inputs: Tensor | None = None,
        *,
        generation_mode: GenerationMode = "text",
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        visual_codes: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """``generate`` of transformers, with all its options except beams for images.

        Args:
            inputs, input_ids: (B,L) prompts, by either name.
            generation_mode: "text": only text ids. "image": exactly N visual ids after the image begin id, which is appended
                if the prompts do not end with it. "interleaved": text with complete images.
            attention_mask: (B,L), 0 at padding.
            pixel_values: (I,3,H,W) in [-1,1], the images of the prompts; both come from the processor.
            visual_codes: (B,L,C) codes of images that are already ids, if C > 1.
            kwargs: as in transformers; images are sampled with ``image_top_k`` of the configuration unless ``top_k`` is given; a limit of the length may be named in any way that transformers knows, and does not
                apply to "image". ``guidance_scale`` > 1 with ``negative_prompt_ids`` (default: the image begin id
                alone, as in training) is classifier-free guidance in two passes; ``generate_images`` does it in one.

        Returns:
            "text" and "interleaved": (B,L') ids, prompts included (as is all that ``return_dict_in_generate`` returns).
            "image": ids of the image tokenizer (B,N) or (B,N,C) for ``decode_image_tokens``.

        Raises:
            ValueError: a prompt is empty, leaves no room in the context or has visual ids outside an image, images do not
                match the placeholders, or guidance_scale <= 0.
        """
        if generation_mode not in get_args(GenerationMode):
            raise ValueError(f"generation_mode must be text, image or interleaved, got {generation_mode!r}")
        prompt = inputs if inputs is not None else input_ids
        if prompt is None:
            raise ValueError("the prompt is missing: pass input_ids")
        own: Any = self.generation_config  # pyright: ignore[reportAttributeAccessIssue]
        check_guidance(find_option("guidance_scale", kwargs, own))
        vocabulary, context_length = self.vocabulary, self.config.context_length
        prompt, visual_codes = self.fill_images(prompt, pixel_values, visual_codes)
        if generation_mode == "image":
            prompt, attention_mask = with_begin(vocabulary, prompt, attention_mask)
        check_prompt(vocabulary, prompt, attention_mask, mode=generation_mode, context_length=context_length)
        several = vocabulary.codes_per_token > 1
        if generation_mode == "image" and several:
            options: dict[str, Any] = {"top_k": self.config.image_top_k} | options_of_several_codes(kwargs)
            return _images_of_several_codes(self, prompt, attention_mask, visual_codes, **options)
        if generation_mode == "image":
            kwargs = image_options(vocabulary, prompt.shape[1], own_top_k=self.config.image_top_k, **kwargs)
        else:
            if several and generation_mode == "interleaved":
                raise ValueError(
                    "with several codes per token an image cannot be part of a sequence of ids: use generation_mode text "
                    "or image"
                )
            kwargs |= {"visual_codes": visual_codes} if several else {}
            kwargs = text_options(vocabulary, generation_mode, prompt, context_length, kwargs, own)
        stock = super().generate  # pyright: ignore[reportAttributeAccessIssue]
        found = stock(prompt, attention_mask=attention_mask, **kwargs)
        if generation_mode == "image" and isinstance(found, Tensor):
            return vocabulary.tokenizer_ids(found[:, prompt.shape[1] :])
        return found

    @torch.no_grad()
    def generate_images(
        self: ImageTextModel, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Generate one image for each prompt, in one pass per step over conditional and unconditional prompts.

        Args and errors: see ``image_generation.stream_tokens``. Equal to
        ``generate(generation_mode="image", guidance_scale=...)`` under greedy decoding, and faster: only visual rows of the head
        are multiplied.

        Returns:
            ids of the image tokenizer (B,N), or (B,N,C).
        """
        return torch.stack(list(stream_tokens(self, input_ids, attention_mask, **options)), dim=1)

    def stream_images(
        self: ImageTextModel, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """As ``generate_images``, but yields the ids so far after every row of tokens: (B,n) or (B,n,C), n up to N.

        ``decode_partial`` decodes each to images.
        """
        columns = _grid(self)[1]
        tokens = stream_tokens(
            self, input_ids, attention_mask, **options
        )  # checks the prompts now, not at the first row

        def rows() -> Iterator[Tensor]:
            done = []
            for chosen in tokens:
                done.append(chosen)
                if len(done) % columns == 0:
                    yield torch.stack(done, dim=1)

        return rows()

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: Sequence[Tensor],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """The score of each generated id, as in transformers, but for scores over any number of ids.

        Scores are as wide as the rows of the head that the mode computes: text rows alone, or text and visual rows.

        Args:
            sequences: (B,L) prompts and generated ids, from ``generate`` with ``return_dict_in_generate``.
            scores: of each step, (rows,V).
            beam_indices: (B,steps) the row that each id comes from, -1 after the end; by default row b for sequence b.
            normalize_logits: log-softmax of the scores first.

        Returns:
            (B,steps), 0 where ``beam_indices`` is below 0.
        """
        scores_SRV = torch.stack(tuple(scores))
        if normalize_logits:
            scores_SRV = scores_SRV.log_softmax(dim=-1)
        if beam_indices is None:
            beam_indices = torch.arange(scores_SRV.shape[1], device=sequences.device)[:, None]
            beam_indices = beam_indices.expand(-1, len(scores_SRV))
        steps = int((beam_indices >= 0).sum(dim=-1).max())
        rows_BS, ids_BS = beam_indices[:, :steps], sequences[:, sequences.shape[1] - steps :]
        found_BS = scores_SRV[torch.arange(steps, device=sequences.device), rows_BS.clamp_min(0), ids_BS]
        return found_BS.masked_fill(rows_BS < 0, 0)

    def decode_image_tokens(self: ImageTextModel, image_tokens: Tensor) -> Tensor:
        """Ids of the image tokenizer (B,N) or (B,N,C) -> images (B,3,H,W) in [-1,1]."""
        return self.image_tokenizer.decode(image_tokens)

    @torch.no_grad()
    def decode_partial(self: ImageTextModel, image_tokens: Tensor) -> Tensor:
        """Decode the first rows of images, (B,n) or (B,n,C) -> (B,3,H,W) in [-1,1], grey where tokens are missing.

        The decoder attends to all tokens, so missing rows are filled with copies of the last finished row for decoding and
        painted grey afterwards: only generated content is shown.

        Raises:
            ValueError: there is less than one row of tokens, or more than an image has.
        """
        rows, columns = _grid(self)
        done = image_tokens.shape[1] // columns
        if not 1 <= done <= rows:
            raise ValueError(
                f"ids must hold between one row of {columns} tokens and {rows} rows, got {image_tokens.shape[1]} tokens"
            )
        finished = image_tokens[:, : done * columns]
        filling = [finished[:, -columns:]] * (rows - done)
        pixel_values = self.image_tokenizer.decode(torch.cat([finished, *filling], dim=1))
        pixel_values[:, :, pixel_values.shape[-2] * done // rows :] = GREY
        return pixel_values

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self: ImageTextModel, input_ids: Tensor, visual_codes: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers, with the visual codes sliced like the ids, and the cache told where in an image they continue."""
        prepared = super().prepare_inputs_for_generation(input_ids, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        ids = prepared.get("input_ids")
        if visual_codes is not None and ids is not None:
            codes = F.pad(visual_codes, (0, 0, 0, input_ids.shape[1] - visual_codes.shape[1]))
            prepared["visual_codes"] = codes[:, input_ids.shape[1] - ids.shape[1] :]
        if self.config.image_positions and ids is not None:  # beams change rows of a cache, assistants shorten it
            seen_BL = self.vocabulary.is_visual(input_ids[:, : input_ids.shape[1] - ids.shape[1]])
            note_tokens(prepared.get("past_key_values"), tokens_at_end(seen_BL, self.vocabulary.image_tokens))
        return prepared


def _images_of_several_codes(
    model: ImageTextModel,
    prompt: Tensor,
    attention_mask: Tensor | None,
    visual_codes: Tensor | None,
    *,
    guidance_scale: float | None = None,
    negative_prompt_ids: Tensor | None = None,
    negative_prompt_attention_mask: Tensor | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    **kwargs: Any,
) -> Tensor:
    """Images with several codes per token, (B,N,C), by our own loop with the applicable options of transformers."""
    if kwargs:
        raise ValueError(f"with several codes per token images are generated without {', '.join(sorted(kwargs))}")
    if visual_codes is not None:
        visual_codes = F.pad(visual_codes, (0, 0, 0, prompt.shape[1] - visual_codes.shape[1]))
    seed = int(torch.randint(2**31, ())) if do_sample else 0  # follows torch.manual_seed, as transformers does
    tokens = stream_tokens(
        model,
        prompt,
        attention_mask,
        guidance=1.0 if guidance_scale is None else guidance_scale,
        negative_ids=negative_prompt_ids,
        negative_attention_mask=negative_prompt_attention_mask,
        sampling=Sampling(temperature=temperature if do_sample else 0.0, top_k=top_k, top_p=top_p, seed=seed),
        visual_codes=visual_codes,
    )
    return torch.stack(list(tokens), dim=1)


def _grid(model: ImageTextModel) -> tuple[int, int]:
    tokenizer = model.config.tokenizer_config
    return tokenizer.grid(tokenizer.image_size, tokenizer.image_size)
