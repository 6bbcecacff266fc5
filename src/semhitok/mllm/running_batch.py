"""Continuous batching: texts and images of different lengths share the passes of the language model; new ones join at any step.

Each generation advances by one token a step, whatever the others are. A text takes one row of the pass; an image takes one, or
two with guidance, of which the second holds the unconditional prompt. Prompts are processed when a generation joins, in passes
of their own, so each step of the others waits for at most ``PREFILL_TOKENS`` of them.

Nothing depends on what else is in the batch, up to the rounding of sums: random numbers depend on a generation's own seed
and position (see ``Sampling``).

Shapes: J generations, R rows of the pass, Q positions of a prompt, P positions of images, C codes per token, D channels, V ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from semhitok.mllm.modeling import SemHiTokForConditionalGeneration
from semhitok.mllm.prompts import check_guidance, check_prompt, with_begin
from semhitok.mllm.sampling import Sampling, choose_each
from semhitok.mllm.slot_cache import SlotCache, check_full_attention
from semhitok.mllm.vocabulary import Vocabulary

PREFILL_TOKENS = 2048
"""Most positions of prompts in one pass."""
PADDED_SHARE = 0.5
"""Prompts shorter than this share of the longest one get a pass of their own."""


@dataclass(eq=False)
class Generation:
    """One text or image that is generated.

    Attributes:
        prompt: (L,) ids without placeholders; the image begin id is appended for an image.
        limit: maximum number of new tokens; images always take N.
        image: an image rather than text.
        codes: (L,C) codes of images in the prompt, if C > 1.
        sampling: temperature, top-k, top-p and seed.
        guidance: scale of classifier-free guidance of an image, above 0; 1 is none.
        ends: ids that end a text; they are among the found ones.
        stop: called after every new token with ``found``; True ends the text.
        found: the new ids; for images ids of the image tokenizer, lists of C ids if C > 1.
        done: whether it is complete.
    """

    prompt: Tensor
    limit: int
    image: bool = False
    codes: Tensor | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    guidance: float = 1.0
    ends: frozenset[int] = frozenset()
    stop: Callable[[list], bool] | None = None
    found: list = field(default_factory=list)
    done: bool = False

    @property
    def rows(self) -> int:
        """Rows of the pass that it takes: two for an image with guidance."""
        return 2 if self.image and self.guidance != 1.0 else 1

    def check(self, vocabulary: Vocabulary, context_length: int) -> None:
        """Reject what cannot be generated.

        Raises:
            ValueError: guidance of 0 or less, or see ``prompts.check_prompt``.
        """
        check_guidance(self.guidance)
        ids_1L, _ = with_begin(vocabulary, self.prompt[None], None) if self.image else (self.prompt[None], None)
        check_prompt(vocabulary, ids_1L, None, mode="image" if self.image else "text", context_length=context_length)


@dataclass(eq=False)
class _Row:
    """One row of the pass: its generation, the number of positions in the cache, and the token that follows them."""

    of: Generation
    length: int
    unconditional: bool = False
    next_id: int = 0
    next_codes: list[int] | None = None

    @property
    def image_tokens(self) -> int:
        """Number of tokens of the image before the next one; 0 in a text."""
        return len(self.of.found) - 1 if self.of.image else 0


class RunningBatch:
    """Generations that advance together.

    Args:
        model: in eval mode.
        rows: R, the most rows of a pass, at least 2.

    Raises:
        ValueError: fewer rows, or a language model with layers of other than full attention.
    """

    def __init__(self, model: SemHiTokForConditionalGeneration, *, rows: int) -> None:
        if rows < 2:
            raise ValueError(f"a running batch needs at least 2 rows, one image with guidance, got {rows}")
        check_full_attention(model.config.text_config)
        self.model, self.vocabulary = model, model.vocabulary
        self.size = rows
        self._marks = [mark for mark in (self.vocabulary.own_begin_id, self.vocabulary.own_end_id) if mark is not None]
        self.clear()

    @torch.inference_mode()
    def clear(self) -> None:
        """Drop all generations and the cache."""
        config = self.model.config
        layers, places = config.text_config.num_hidden_layers, config.context_length
        self._cache = SlotCache(layers=layers, slots=self.size, places=places)
        self._rows: list[_Row] = []

    @property
    def generations(self) -> list[Generation]:
        """Those that are running, in the order in which they joined, more or less."""
        return list(dict.fromkeys(row.of for row in self._rows))

    @property
    def free_rows(self) -> int:
        """Rows that new generations may take."""
        return self.size - len(self._rows)

    @torch.inference_mode()
    def add(self, generations: Sequence[Generation]) -> None:
        """Process the prompts of generations that join and choose their first tokens.

        Args:
            generations: checked ones (see ``Generation.check``) that need no more than ``free_rows``.
        """
        rows = [row for each in generations for row in self._rows_of(each)]
        assert len(rows) <= self.free_rows
        if rows:
            hidden_RD = torch.cat([self._prefill(part) for part in _parts(rows)])
            self._advance(self._rows[-len(rows) :], hidden_RD)

    @torch.inference_mode()
    def step(self) -> None:
        """Choose one more token for every generation; complete ones leave."""
        if not self._rows:
            return
        device = self.model.device
        now_R3 = torch.tensor([[row.next_id, row.length, row.image_tokens] for row in self._rows], device=device)
        codes = None
        if self.vocabulary.codes_per_token > 1:
            empty = [0] * self.vocabulary.codes_per_token
            codes = torch.tensor([[row.next_codes or empty] for row in self._rows], device=device)
        length = max(row.length for row in self._rows) + 1
        hidden_RQD = self._pass(0, now_R3[:, :1], codes, now_R3[:, 1:2], length, now_R3[:, 2])
        for row in self._rows:
            row.length += 1
        self._advance(self._rows, hidden_RQD[:, -1])

    @torch.inference_mode()
    def remove(self, generation: Generation) -> None:
        """Stop a generation that is not complete; without effect if it is not running."""
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].of is generation:
                last = self._rows.pop()
                if slot < len(self._rows):
                    self._cache.move(len(self._rows), slot, last.length)
                    self._rows[slot] = last

    def _rows_of(self, generation: Generation) -> Iterator[tuple[_Row, Tensor, Tensor | None]]:
        """Rows with their prompts (L,) and codes (L,C)."""
        device, codes = self.model.device, self.vocabulary.codes_per_token
        ids_1L = generation.prompt.to(device)[None]
        codes_LC = None if generation.codes is None else generation.codes.to(device)
        if generation.image:
            ids_1L, _ = with_begin(self.vocabulary, ids_1L, None)
        if codes > 1:
            codes_LC = ids_1L.new_zeros(0, codes) if codes_LC is None else codes_LC
            codes_LC = F.pad(codes_LC, (0, 0, 0, ids_1L.shape[1] - len(codes_LC)))
        yield _Row(generation, ids_1L.shape[1]), ids_1L[0], codes_LC
        if generation.rows == 2:
            nothing = None if codes_LC is None else codes_LC.new_zeros(1, codes)
            yield _Row(generation, 1, unconditional=True), ids_1L[0, -1:], nothing

    def _prefill(self, part: Sequence[tuple[_Row, Tensor, Tensor | None]]) -> Tensor:
        """The last hidden states (R,D) of prompts, padded on the right; the rows take the next free slots."""
        rows, prompts, codes = zip(*part, strict=True)
        first, longest = len(self._rows), max(map(len, prompts))
        ids_RQ = torch.stack([F.pad(prompt, (0, longest - len(prompt))) for prompt in prompts])
        codes_RQC = None
        if self.vocabulary.codes_per_token > 1:
            codes_RQC = torch.stack([F.pad(each, (0, 0, 0, longest - len(each))) for each in codes])
        positions_RQ = torch.arange(longest, device=ids_RQ.device).expand(len(rows), -1)
        hidden_RQD = self._pass(first, ids_RQ, codes_RQC, positions_RQ, longest)
        self._rows += rows
        return hidden_RQD[torch.arange(len(rows)), [len(prompt) - 1 for prompt in prompts]]

    def _pass(
        self,
        first: int,
        ids_RQ: Tensor,
        codes_RQC: Tensor | None,
        positions_RQ: Tensor,
        length: int,
        before_R: Tensor | None = None,
    ) -> Tensor:
        """The model on rows in the slots from ``first`` on, of which ``before_R`` continue an image: hidden states (R,Q,D)."""
        embeds_RQD = self.model.embed(ids_RQ, codes_RQC, before_R)
        hidden_R1QP = self._cache.select(first, positions_RQ, length)
        lowest = torch.finfo(embeds_RQD.dtype).min
        outputs = self.model.body(
            inputs_embeds=embeds_RQD,
            attention_mask=embeds_RQD.new_zeros(hidden_R1QP.shape).masked_fill_(hidden_R1QP, lowest),
            position_ids=positions_RQ,
            past_key_values=self._cache,
            use_cache=True,
        )
        assert outputs.last_hidden_state is not None
        return outputs.last_hidden_state

    def _advance(self, rows: Sequence[_Row], hidden_RD: Tensor) -> None:
        """Choose the token after each row's hidden state; complete generations leave."""
        texts = [place for place, row in enumerate(rows) if not row.of.image]
        if texts:
            self._choose_texts([rows[place] for place in texts], hidden_RD[texts])
        images = [place for place, row in enumerate(rows) if row.of.image]
        if images:
            self._choose_images([rows[place] for place in images], hidden_RD[images])
        for generation in {row.of: None for row in rows}:
            generation.done = _is_complete(generation)
            if generation.done:
                self.remove(generation)

    def _choose_texts(self, rows: Sequence[_Row], hidden_RD: Tensor) -> None:
        logits_RV = F.linear(hidden_RD, self.model.head_rows(0, self.vocabulary.text_size))
        if self._marks:
            logits_RV[:, self._marks] = float("-inf")
        chosen = choose_each(logits_RV, [(row.of.sampling, len(row.of.found)) for row in rows])
        for row, value in zip(rows, chosen.tolist(), strict=True):
            row.of.found.append(value)
            row.next_id = value

    def _choose_images(self, rows: Sequence[_Row], hidden_RD: Tensor) -> None:
        """Of each image's rows, the conditional one is followed by the unconditional one, or alone."""
        vocabulary, codes = self.vocabulary, self.vocabulary.codes_per_token
        conditional, unconditional, of_row = _pairs(rows)
        leading = [rows[place].of for place in conditional]
        guided = [place for place, generation in enumerate(leading) if generation.rows == 2]
        scales_J1 = torch.tensor([[leading[place].guidance] for place in guided], device=hidden_RD.device)
        found: list[Tensor] = []

        def choose_for_rows(logits_RV: Tensor) -> Tensor:
            logits_JV = logits_RV[conditional]
            if guided:
                logits_JV = logits_JV.float()
                below_JV = logits_RV[unconditional].float()
                logits_JV[guided] = below_JV + scales_J1 * (logits_JV[guided] - below_JV)
            places = [len(each.found) * codes + len(found) for each in leading]
            found.append(
                choose_each(logits_JV, [(each.sampling, at) for each, at in zip(leading, places, strict=True)])
            )
            return found[-1][of_row]

        if self.model.code_head is None:
            choose_for_rows(F.linear(hidden_RD, self.model.head_rows(vocabulary.visual_begin, vocabulary.visual_end)))
        else:
            self.model.code_head.generate(hidden_RD, choose_for_rows)
        chosen = torch.stack(found, dim=1).tolist()
        for generation, ids in zip(leading, chosen, strict=True):
            generation.found.append(ids if codes > 1 else ids[0])
        for row, place in zip(rows, of_row, strict=True):
            ids = chosen[place]
            row.next_id = vocabulary.visual_begin + (ids[0] if codes == 1 else 0)
            row.next_codes = ids if codes > 1 else None


def _parts(
    rows: Sequence[tuple[_Row, Tensor, Tensor | None]],
) -> Iterator[list[tuple[_Row, Tensor, Tensor | None]]]:
    """Prompts that are processed in one pass: of similar length, and not too many, the longest first."""
    part: list[tuple[_Row, Tensor, Tensor | None]] = []
    for entry in sorted(rows, key=lambda entry: -len(entry[1])):
        longest = len(part[0][1]) if part else 0
        if part and not ((len(part) + 1) * longest <= PREFILL_TOKENS and len(entry[1]) >= PADDED_SHARE * longest):
            yield part
            part = []
        part.append(entry)
    if part:
        yield part


def _pairs(rows: Sequence[_Row]) -> tuple[list[int], list[int], list[int]]:
    """Places of conditional rows, places of unconditional ones in the same order, and for each row its image's number."""
    conditional = [place for place, row in enumerate(rows) if not row.unconditional]
    number = {id(rows[place].of): count for count, place in enumerate(conditional)}
    lower = sorted((number[id(row.of)], place) for place, row in enumerate(rows) if row.unconditional)
    return conditional, [place for _, place in lower], [number[id(row.of)] for row in rows]


def _is_complete(generation: Generation) -> bool:
    found = generation.found
    if generation.image or len(found) >= generation.limit:
        return len(found) >= generation.limit
    return found[-1] in generation.ends or (generation.stop is not None and generation.stop(found))
