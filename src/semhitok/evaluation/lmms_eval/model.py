"""The unified model under lmms-eval: ``lmms-eval --model semhitok --model_args pretrained=FOLDER --tasks pope``.

lmms-eval has two kinds of requests: chat requests hold messages, simple requests a text and separate images. Only simple
ones can rank given answers (output type multiple_choice), so there is a class for each kind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

from semhitok.distributed import choose_device
from semhitok.evaluation.lmms_eval.answers import Answer, answer_likelihoods, generate_answers, read_options
from semhitok.evaluation.lmms_eval.prompts import Messages
from semhitok.inference import DEFAULT_LANGUAGE_MODEL
from semhitok.inference.loading import load_language_model
from semhitok.inference.text_generation import AnswerOptions

DTYPES = ("auto", "float32", "bfloat16", "float16")
ARGUMENTS = ("pretrained", "device", "dtype", "batch_size", "max_new_tokens")


class SemHiTok(lmms):
    """Chat requests.

    Args:
        pretrained: see ``load_language_model``.
        device: by default a GPU if available; several processes (torchrun, accelerate) take one each.
        dtype: "auto" (as stored), "float32", "bfloat16" or "float16".
        batch_size: requests per batch.
        max_new_tokens: maximum length of an answer if the task sets none.
        unknown: rejected; lmms-eval passes on whatever it is given.

    Raises:
        ValueError: an unknown argument, a value out of range, or a checkpoint of another class or that does not fit.
        FileNotFoundError: there is no checkpoint.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = DEFAULT_LANGUAGE_MODEL,
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str = 1,
        max_new_tokens: int | str = 128,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise ValueError(
                f"semhitok takes the model arguments {', '.join(ARGUMENTS)}, got also {', '.join(sorted(unknown))}"
            )
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.batch_size = _count("batch_size", batch_size)
        self.max_new_tokens = _count("max_new_tokens", max_new_tokens)
        self.device = _device(device)
        self._rank, self._world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        precision = "auto" if dtype == "auto" else getattr(torch, dtype)
        self.model, self.processor = load_language_model(pretrained, str(self.device), dtype=precision)

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:  # pyright: ignore
        """An answer to each request, in their order.

        Raises:
            ValueError: for a video or audio, which the model cannot take.
        """
        options = self._options(requests)

        def keep(index: int, answer: Answer) -> None:
            kept = (_arguments(requests[index])[0], self._generation_kwargs(requests[index]))
            self.cache_hook.add_partial("generate_until", kept, answer.text)

        answers = self._answers([partial(self._conversation, each) for each in requests], options, keep)
        return [GenerationResult(each.text, TokenCounts(output_tokens=each.tokens)) for each in answers]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:  # pyright: ignore
        """The answers of all rounds to each request; the task builds the next round from the answers so far and may end it."""
        options = self._options(requests)
        outputs: list[list[str]] = [[] for _ in requests]
        infos: list[Any] = [None] * len(requests)
        waiting: dict[int, Callable[[], Messages]] = {
            index: partial(self._conversation, request) for index, request in enumerate(requests)
        }
        number = 0
        while waiting:
            indices = list(waiting)
            answers = self._answers(list(waiting.values()), [options[index] for index in indices])
            number += 1
            waiting = {}
            for index, answer in zip(indices, answers, strict=True):
                outputs[index].append(answer.text)
                following, ended, written, infos[index] = self._round(
                    requests[index], number, outputs[index], infos[index]
                )
                if written is not None:
                    outputs[index] = list(written)
                if not ended:
                    waiting[index] = partial(list, following)
        for request, output in zip(requests, outputs, strict=True):
            kept = (_arguments(request)[0], self._generation_kwargs(request))
            self.cache_hook.add_partial("generate_until_multi_round", kept, output)
        return outputs

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:  # pyright: ignore
        """For each request the pair of its loss and whether greedy decoding gives the answer, in place of a text.

        The loss is the negative log-probability of the given answer: the tasks of lmms-eval take the answer with the
        smallest value, whatever the method is called. A bare pair would reach them as a string in lmms-eval 0.7.
        """
        found: list[GenerationResult] = []
        cuts = 0
        for start in _progress(range(0, len(requests), self.batch_size), self.rank):
            chosen = requests[start : start + self.batch_size]
            results = answer_likelihoods(
                self.model,
                self.processor,
                [_user_turn(self._visuals(each), _arguments(each)[0]) for each in chosen],
                [
                    target if isinstance(target := _arguments(each)[1], str) else target(self._doc(each))
                    for each in chosen
                ],
            )
            for request, result in zip(chosen, results, strict=True):
                pair = (-result.log_probability, result.greedy)
                self.cache_hook.add_partial("loglikelihood", _arguments(request)[:2], pair)
                found.append(GenerationResult(pair))  # pyright: ignore[reportArgumentType]
                cuts += result.cut
        self._report_cuts(cuts, len(requests))
        return found

    def _answers(
        self,
        conversations: Sequence[Callable[[], Messages]],
        options: Sequence[AnswerOptions],
        keep: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Answers in order; requests with equal options share batches, and only one batch of images is in memory."""
        groups: dict[AnswerOptions, list[int]] = {}
        for index, option in enumerate(options):
            groups.setdefault(option, []).append(index)
        batches = [
            (option, indices[start : start + self.batch_size])
            for option, indices in groups.items()
            for start in range(0, len(indices), self.batch_size)
        ]
        found: dict[int, Answer] = {}
        began = time.perf_counter()
        for option, indices in _progress(batches, self.rank):
            batch = [conversations[index]() for index in indices]
            for index, answer in zip(indices, generate_answers(self.model, self.processor, batch, option), strict=True):
                found[index] = answer
                if keep is not None:
                    keep(index, answer)
        seconds, tokens = time.perf_counter() - began, sum(answer.tokens for answer in found.values())
        log_metrics(seconds, tokens, tokens / seconds, {"num_requests": len(found)})
        self._report_cuts(sum(answer.cut for answer in found.values()), len(found))
        return [found[index] for index in range(len(conversations))]

    def _conversation(self, request: Instance) -> Messages:
        """The first round of a request."""
        if self.is_simple:
            return _user_turn(self._visuals(request), _arguments(request)[0])
        return _arguments(request)[1](self._doc(request))

    def _round(
        self, request: Instance, number: int, outputs: list[str], info: Any
    ) -> tuple[Messages, bool, list[str] | None, Any]:
        """A later round: its conversation, whether the task is done, answers rewritten by the task, state for its next call."""
        source = _arguments(request)[3] if self.is_simple else _arguments(request)[1]
        step = source(self._doc(request), round_idx=number, previous_output=list(outputs), previous_round_info=info)
        match step:
            case tuple((visuals, text, ended, written, info)) if self.is_simple:
                return ([] if ended else _user_turn(visuals or [], text)), bool(ended), written, info
            case tuple((conversation, ended, written, info)) if not self.is_simple:
                return conversation, bool(ended), written, info
        return [], True, None, None  # a task of a single round

    def _generation_kwargs(self, request: Instance) -> dict[str, Any]:
        return _arguments(request)[1 if self.is_simple else 2] or {}

    def _options(self, requests: Sequence[Instance]) -> list[AnswerOptions]:
        read = [read_options(self._generation_kwargs(request), self.max_new_tokens) for request in requests]
        unread = sorted(frozenset[str]().union(*(names for _, names in read)))
        if unread:
            logger.warning(f"generation arguments that semhitok does not support: {', '.join(unread)}")
        return [options for options, _ in read]

    def _doc(self, request: Instance) -> Any:
        doc_id, task, split = _arguments(request)[-3:]
        return self.task_dict[task][split][doc_id]

    def _visuals(self, request: Instance) -> Sequence[Any]:
        """The images of a simple request; a text-only task has no function for them, or one that returns nothing."""
        doc_to_visual = _arguments(request)[2]
        return (doc_to_visual(self._doc(request)) if doc_to_visual is not None else None) or []

    def _report_cuts(self, cuts: int, count: int) -> None:
        if cuts:
            context = self.model.config.context_length
            logger.warning(f"{cuts} of {count} prompts were truncated on the left to fit a context of {context} tokens")


class SemHiTokSimple(SemHiTok):
    """Simple requests (``--force_simple``), including tasks that rank given answers."""

    is_simple = True


def _arguments(request: Instance) -> tuple[Any, ...]:
    """Arguments of a request, which end with doc id, task and split and begin with

    chat      text, doc_to_messages, generation kwargs
    simple    text, generation kwargs, doc_to_visual, and with rounds doc_to_text
    ranking   text, answer or doc_to_target, doc_to_visual
    """
    return tuple(request.args)


def _user_turn(images: Sequence[Any], text: str) -> Messages:
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def _progress(batches: Sequence[Any], rank: int) -> Iterator[Any]:
    return iter(tqdm(batches, desc="answers", disable=rank != 0))


def _count(name: str, value: int | str) -> int:
    if not str(value).isdecimal() or int(value) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _device(name: str | None) -> torch.device:
    """One GPU for each process, by its number on the machine."""
    device = choose_device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device
