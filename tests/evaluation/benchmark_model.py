"""A tiny model that says yes or no, its processor, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.mllm.tiny_mllm import WORDS, mllm
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from semhitok.evaluation.lmms_eval.prompts import Messages, padded, prompt_of
from semhitok.mllm import SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor
from tokenizers import Tokenizer, models, pre_tokenizers

Model = tuple[SemHiTokForConditionalGeneration, SemHiTokMLLMProcessor]
SPECIAL = ["<pad>", "<end>", "<unk>"]
VOCABULARY = [*SPECIAL, "yes", "no", "user:", "assistant:", *WORDS]
YES, NO = VOCABULARY.index("yes"), VOCABULARY.index("no")


def text_tokenizer() -> PreTrainedTokenizerFast:
    """One id for a word; 0 pads, 1 ends, 2 is unknown."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


def talking_model() -> SemHiTokForConditionalGeneration:
    """Random, but says words alone, neither special tokens nor ids that the text tokenizer has not."""
    return _says({word: _direction(word) for word in range(len(SPECIAL), len(VOCABULARY))})


def judging_model(conversations: Sequence[Messages]) -> SemHiTokForConditionalGeneration:
    """Says yes to some of the conversations and no to the others: by the direction in which they differ most."""
    model, processor = talking_model(), processing()
    states = []
    for conversation in conversations:
        inputs = padded(processor, [prompt_of(processor, conversation)], model.device)
        with torch.no_grad():
            ids, _ = model.fill_images(inputs["input_ids"], inputs.get("pixel_values"))
            states.append(model.body(ids).last_hidden_state[0, -1])
    states_PD = torch.stack(states)
    _, _, directions = torch.linalg.svd(states_PD - states_PD.mean(dim=0))
    mean = states_PD.mean(dim=0)
    direction = directions[0] - mean * (directions[0] @ mean) / (mean @ mean)
    return _says({YES: direction, NO: -direction})


def _says(rows: dict[int, Tensor]) -> SemHiTokForConditionalGeneration:
    """With these rows of the head, and zeros for all other texts. Layers outweigh the embedding of the last word."""
    model = mllm(text=text_tokenizer())
    with torch.no_grad():
        model.get_input_embeddings().weight *= 0.1
        model.lm_head.weight[: model.vocabulary.text_size] = 0
        for word, row in rows.items():
            model.lm_head.weight[word] = row
    return model


def _direction(seed: int) -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


def processing() -> SemHiTokMLLMProcessor:
    return SemHiTokMLLMProcessor.for_config(talking_model().config, text_tokenizer())


def saved(model: SemHiTokForConditionalGeneration, folder: Path) -> Path:
    model.save_pretrained(folder)
    SemHiTokMLLMProcessor.for_config(model.config, text_tokenizer()).save_pretrained(folder)
    return folder


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def answered(direct: Model, messages: list[dict], **options: Any) -> str:
    """Greedy, one conversation, by processor and model alone."""
    model, processor = direct
    inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    ids = model.generate(**inputs, do_sample=False, pad_token_id=0, **options)
    return processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def asked(text: str, *images: Image.Image) -> list[dict]:
    parts = [{"type": "image", "url": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
