"""``semhitok convert``: what is printed, exit codes, help."""

from __future__ import annotations

import pytest
import torch
from tests.tokenizers.unitok.released import TINY, unitok_checkpoint

from semhitok.tokenizers.unitok.modeling import UniTokModel


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "unitok_tokenizer.pth"
    content = unitok_checkpoint(TINY)
    content["trainer"]["disc"] = {"weight": torch.ones(2)}
    torch.save(content, path)
    return path


def test_convert_says_what_it_did(run, released, tmp_path):
    outcome = run("convert", "unitok", released, tmp_path / "out", "--dtype", "bfloat16")
    assert (outcome.code, outcome.err) == (0, "")
    model = UniTokModel.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert f"{sum(p.numel() for p in model.parameters()):,} numbers" in outcome.out
    assert "left out, always zero: 3 (encoder.pos_embed ... post_quant_proj.attn.zero_k_bias)" in outcome.out
    assert "left out, statistics of the training, not of the model: 4 (quantizer.codebooks.0.vocab_usage" in outcome.out
    assert "left out, of the training, not of the model: 1 (trainer.disc)" in outcome.out
    written = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert written < {file.name for file in (tmp_path / "out").iterdir()}
    assert all(f"wrote {tmp_path / 'out' / name}" in outcome.out for name in written)


def test_errors_are_one_sentence(run, released, tmp_path):
    assert run("convert", "unitok", released, released.parent).err == (
        f"semhitok convert: {released.parent} is in use: convert to a new or empty folder\n"
    )
    outcome = run("convert", "unitok", tmp_path / "absent.pth", tmp_path / "out")
    assert outcome.code == 1
    assert outcome.err == f"semhitok convert: no such file: {tmp_path / 'absent.pth'}\n"
    assert run("convert", "unitok", released, tmp_path / "out", "--dtype", "float16").code == 2
    assert run("convert").code == 2
    assert run("convert", "vqgan", released, tmp_path / "out").code == 2


def test_help(run):
    page = run("convert", "--help")
    assert page.code == 0
    assert "--dtype {float32,bfloat16}" in page.out
    assert "unitok_tokenizer.pth" in page.out
    assert max(len(line) for line in page.out.splitlines() if line.startswith(("│", "╭", "╰", " "))) <= 80
