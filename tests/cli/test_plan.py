"""``semhitok plan``: the paper's language model without downloads, and requests that cannot be planned."""

from __future__ import annotations

import json

import pytest

from semhitok.recipes import LANGUAGE_RECIPES
from semhitok.runs.planning import language_stages


def test_what_cannot_be_planned_is_one_sentence(run):
    for arguments, code, said in (
        (["nosuch"], 1, "there is no recipe 'nosuch'; nano, mini,"),
        (["nano", "--gpu", "h900"], 1, "there is no GPU 'h900' in the table; a100-40gb,"),
        (["nano", "--gpus", "0"], 1, "gpus must be above 0, got 0"),
        (["nano", "--mfu", "1.5"], 1, "mfu must be above 0 and at most 1, got 1.5"),
        (
            ["mllm_qwen2_5_7b", "--gpus", "48"],
            1,
            "the batch of stage pretrain, 256, cannot be divided among 48 GPUs: 32 GPUs would do",
        ),
    ):
        outcome = run("plan", *arguments)
        assert outcome.code == code
        assert said in outcome.err
        assert outcome.err.strip().splitlines()[-1].count(". ") == 0


def test_the_papers_language_model_is_planned_without_downloads(run, monkeypatch):
    monkeypatch.setattr(language_stages, "encoding_flops", lambda config: 1e12)
    outcome = run("plan", "mllm_qwen2_5_7b", "--gpus", "64", "--json")
    assert outcome.code == 0, outcome.err
    pretrain, sft = json.loads(outcome.out)
    parts = {part["name"]: part["parameters"] for part in pretrain["stage"]["parts"]}
    assert parts["language model's layers"] == 6_525_621_760
    assert parts["head"] == 3584 * (152_064 + 196_608 + 2)  # begin and end of an image
    assert pretrain["memory"]["weights"] < 10 * 2**30
    assert sft["stage"]["batch_size"] == LANGUAGE_RECIPES["mllm_qwen2_5_7b"]().sft.loop.batch_size
    # 6 FLOPs for each weight and token, 12 R D for each layer and token, both without what recomputation would add.
    layers = 6 * parts["language model's layers"] * 4096 + 12 * 28 * 3584 * 4096**2
    flops = {part["name"]: part["flops"] for part in pretrain["stage"]["parts"]}
    assert flops["language model's layers"] == pytest.approx(layers, rel=0.001)
