"""Language models for ``digests``: the bundled one, and its training."""

from __future__ import annotations

from pathlib import Path

import torch
from benchmarks.digest_material import PHOTOGRAPHS, SCENES
from benchmarks.digest_record import Digests, run, steps

import semhitok


@torch.no_grad()
def language_model_tokenizer(digests: Digests) -> None:
    """The tokenizer within the shipped language model, which no command shows by itself."""
    model = semhitok.SemHiTokForConditionalGeneration.from_pretrained("mllm_nano").eval()
    processor = semhitok.TokenizerImageProcessor(size=model.config.tokenizer_config.image_size)
    ids = model.image_tokenizer.encode(processor(sorted(PHOTOGRAPHS.glob("*.jpg")))["pixel_values"]).ids
    digests.tensor("mllm_nano: ids", ids)
    digests.tensor("mllm_nano: pixels", model.image_tokenizer.decode(ids))


def language_model(digests: Digests) -> None:
    """Drawing, answers and the evaluation of the shipped language model."""
    digests.run("generate 'a rabbit' 'two bananas' --seeds 2 --out drawn/seeds")
    digests.run("generate 'a rabbit' 'two bananas' --seeds 2 --temperature 0 --out drawn/greedy")
    options = "--stream --guidance 1 --top-k 50 --top-p 0.9 --seed 3 --out drawn/sampled"
    digests.run(f"generate 'a dog above an owl' --seeds 2 {options}")
    Path("prompts.txt").write_text("a red car\nthree horses\nan owl to the left of a dog\n")
    digests.run("generate --prompts prompts.txt --seeds 1 --out drawn/set")
    for scene in (0, 8):
        for question in ("What kind of thing was put into the picture?", "Is there a dog in the picture?"):
            digests.run(f"chat {SCENES}/scene-0{scene}.jpg '{question}'")
    digests.run(f"chat {SCENES}/scene-02.jpg 'Describe the picture.' --temperature 2 --top-p 0.99 --seed 1")
    digests.run(f"chat {SCENES}/scene-02.jpg 'How many are there?' --more-images {SCENES}/scene-08.jpg")
    turns = [
        "How many taxis are in the picture?",
        "Describe the picture.",
        f"/image {SCENES}/scene-07.jpg",
        "What is it?",
    ]
    digests.run(f"chat {SCENES}/scene-08.jpg", stdin="\n".join([*turns, "Is there a hamburger?"]))
    options = "--train scenes/train --prompts 6 --guidance 1 3 --judge-scenes 40 --out drawn/evaluation"
    digests.run(f"evaluate-mllm scenes/shared {options}")
    digests.folder("drawn")


def train_language_models(digests: Digests) -> None:
    """The stages from scratch; low-rank changes on tokens of several codes; continuous features."""
    place = "--data scenes/train --device cpu --records.block-rows 8 --records.workers 0"
    run(f"train mllm_nano {place} --out runs/mllm {steps('align.', 'pretrain.', 'sft.', batch=2)}")
    digests.training("runs/mllm/align", "runs/mllm/pretrain", "runs/mllm/sft")

    single = f"--stages pretrain --adapter single {steps('pretrain.', count=6, batch=2)} --pretrain.mix.caption 1"
    several = "--tokenizer runs/unitok/model --pretrain.task.trained lora --pretrain.task.checkpoint-activations"
    several += " --pretrain.mix.text-to-image 1 --pretrain.described 0.3 --pretrain.row-length 192"
    run(f"train mllm_nano {place} --out runs/several {single} {several} --records.no-pretokenize")
    run(f"train mllm_nano {place} --out runs/continuous {single} --continuous --pretrain.learn answers")
    digests.training("runs/several/pretrain", "runs/continuous/pretrain")
