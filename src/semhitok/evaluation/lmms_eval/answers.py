"""What a benchmark needs from a model: answers under its generation settings, and likelihoods of given answers.

Shapes: B conversations, K last positions, T text ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from semhitok.evaluation.lmms_eval.prompts import Messages, Prompt, answer_ids, fitted, padded, prompt_of
from semhitok.inference.text_generation import AnswerOptions, generate_text
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor

ANSWER_SHARE = 4
"""A prompt is truncated to leave room for ``max_new_tokens``, but for at most one position in this many of the context."""
FILLER_STOPS = ("\n\n",)
"""The stop string that lmms-eval adds to every task without one; answers to such tasks may have several paragraphs."""


def read_options(given: Mapping[str, Any], max_new_tokens: int) -> tuple[AnswerOptions, frozenset[str]]:
    """Parse the ``generation_kwargs`` of a task; returns the options and the names that are not supported here.

    Args:
        given: None counts as absent. Answers are sampled if ``do_sample`` is set or, without it, if the temperature is
            above 0.
        max_new_tokens: used if the task sets none.

    Raises:
        ValueError: a value is not a number, or out of range.
    """
    named = {name: value for name, value in given.items() if value is not None}
    until = named.pop("until", ())
    stops = tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)
    numbers: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    kinds = {"max_new_tokens": int, "num_beams": int, "repetition_penalty": float}
    sampling = {"temperature": float, "top_p": float, "top_k": int}
    do_sample = named.pop("do_sample", None)
    drawn = {name: _number(name, named.pop(name), kind) for name, kind in sampling.items() if name in named}
    temperature = drawn.get("temperature", 1.0 if do_sample else 0.0)
    if do_sample or (do_sample is None and temperature > 0):  # tasks with greedy decoding leave top_p at 0
        numbers |= drawn | {"temperature": temperature}
    numbers |= {name: _number(name, named.pop(name), kind) for name, kind in kinds.items() if name in named}
    return AnswerOptions(**numbers, stops=() if stops == FILLER_STOPS else stops), frozenset(named)


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: up to the first stop string.
        tokens: number of generated ids.
        cut: whether the conversation was truncated to fit the context.
    """

    text: str
    tokens: int
    cut: bool


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of a given answer under the model.

    Attributes:
        log_probability: of the whole answer, in nats; ids that text generation never produces are excluded.
        greedy: whether each of its ids is the most likely one.
        cut: whether the conversation was truncated to fit the context.
    """

    log_probability: float
    greedy: bool
    cut: bool


def generate_answers(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    conversations: Sequence[Messages],
    options: AnswerOptions,
) -> list[Answer]:
    """Answer one batch of conversations.

    Args:
        model: in eval mode.
        processor: the model's own.
        conversations: each ends with the question.
        options: for all of them; sampling follows ``torch.manual_seed``.

    Raises:
        ValueError: see ``prompt_of``.
    """
    context = model.config.context_length
    limit = context - min(options.max_new_tokens, context // ANSWER_SHARE)
    prompts = [fitted(model.vocabulary, prompt_of(processor, each), limit) for each in conversations]
    inputs = padded(processor, prompts, model.device)
    found = generate_text(model, processor, inputs, options, end_id=processor.tokenizer.eos_token_id)
    return [Answer(each.text, each.tokens, prompt.cut) for each, prompt in zip(found, prompts, strict=True)]


@torch.no_grad()
def answer_likelihoods(
    model: SemHiTokForConditionalGeneration,
    processor: SemHiTokMLLMProcessor,
    conversations: Sequence[Messages],
    answers: Sequence[str],
) -> list[Likelihood]:
    """Likelihood of one given answer to each conversation of a batch.

    Args:
        model, processor, conversations: see ``generate_answers``.
        answers: one for each conversation. An empty answer has probability 1; one too long for the context keeps its end.

    Raises:
        ValueError: see ``prompt_of``.
    """
    vocabulary, context = model.vocabulary, model.config.context_length
    longest = context - context // ANSWER_SHARE
    rows, targets = [], []
    for conversation, answer in zip(conversations, answers, strict=True):
        whole = answer_ids(processor, conversation, answer)
        wanted = whole[-longest:]
        prompt = fitted(vocabulary, prompt_of(processor, conversation), context - len(wanted))
        rows.append(Prompt((*prompt.ids, *wanted), prompt.images, cut=prompt.cut or wanted != whole))
        targets.append(torch.tensor(wanted, dtype=torch.long, device=model.device))
    inputs = padded(processor, rows, model.device)
    logits_BKT = model(
        **inputs,
        position_ids=(inputs["attention_mask"].cumsum(dim=1) - 1).clamp_min(0),
        use_cache=False,
        text_only=True,
        logits_to_keep=max(map(len, targets)) + 1,
    ).logits.float()
    marks = [mark for mark in (vocabulary.image_begin_id, vocabulary.image_end_id) if mark < vocabulary.text_size]
    logits_BKT[..., marks] = float("-inf")
    found = []
    for logits_KT, target, row in zip(logits_BKT, targets, rows, strict=True):
        predicted = logits_KT[-len(target) - 1 : -1].log_softmax(dim=-1)
        sums = predicted.gather(1, target[:, None]).sum()
        found.append(Likelihood(float(sums), bool((predicted.argmax(dim=-1) == target).all()), row.cut))
    return found


def _number(name: str, value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the generation argument {name} must be a number, got {value!r}") from error
