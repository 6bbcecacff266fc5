"""Released tokenizers give the ids and pixels of the classes of transformers, from any of their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import pixels, save_images
from tests.tiny_released import CHAMELEON, vqvae
from transformers import ChameleonConfig, ChameleonForConditionalGeneration, LlamaConfig, LlamaForCausalLM

from semhitok.cli import main
from semhitok.mllm import SemHiTokForConditionalGeneration
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint
from semhitok.tokenizers.loading import load_tokenizer
from semhitok.tokenizers.protocol import Tokenizer
from semhitok.tokenizers.released import ReleasedTokenizerConfig, ReleasedTokenizerModel


def test_ids_and_pixels_of_janus(tmp_path: Path):
    model, images = vqvae("janus"), pixels(3)
    model.save_pretrained(tmp_path)
    adapter = load_tokenizer(tmp_path)
    assert isinstance(adapter, Tokenizer)
    encoded = adapter.encode(images)
    with torch.no_grad():
        wanted = model.encode(images, return_dict=True).image_tokens.view(3, -1)
        assert len(wanted.unique()) > 3
        assert torch.equal(encoded.ids, wanted)
        assert torch.equal(adapter.decode(encoded.ids), model.decode(wanted).clamp(-1, 1))
        assert torch.equal(adapter(images), model(images).decoded_pixel_values.clamp(-1, 1))
    assert (encoded.grid, adapter.num_tokens, adapter.vocab_size, adapter.config.image_size) == ((8, 8), 64, 20, 32)
    oblong = adapter.encode(pixels(1)[..., :16])
    assert adapter.decode(oblong.ids, oblong.grid).shape == (1, 3, 32, 16)


def test_ids_of_chameleon_which_cannot_decode(tmp_path: Path):
    model, images = vqvae("chameleon"), pixels(3)
    model.save_pretrained(tmp_path)
    adapter = load_tokenizer(tmp_path)
    ids = adapter.encode(images).ids
    with torch.no_grad():
        assert torch.equal(ids, model.encode(images, return_dict=True).image_tokens.view(3, -1))
    assert torch.equal(adapter.embed(ids).pixel, model.quantize.embedding.weight[ids])
    with pytest.raises(ValueError, match="Chameleon VQ cannot decode: ChameleonVQVAE of transformers has no decoder"):
        adapter.decode(ids)


def test_ids_and_pixels_of_emu3_whose_images_are_short_videos(tmp_path: Path):
    model, images = vqvae("emu3"), pixels(2)
    model.save_pretrained(tmp_path)
    adapter = ReleasedTokenizerModel.from_released(tmp_path, image_size=32)
    encoded = adapter.encode(images)
    with torch.no_grad():
        video = images[:, None].repeat(1, 2, 1, 1, 1)
        wanted = torch.stack(model.encode(video, torch.tensor([[32, 32]] * 2), return_dict=True).image_tokens)[:, 0]
        assert torch.equal(encoded.ids, wanted.flatten(1))
        assert torch.equal(adapter.decode(encoded.ids), model.decode(wanted).clamp(-1, 1))
    assert load_tokenizer(tmp_path).config.image_size == 512


def test_a_whole_model_is_read_for_its_vqvae_alone(tmp_path: Path):
    text = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    names = {"<image>": 8, **{f"IMGIMG{chr(65 + each)}Z": each for each in range(4)}}
    whole = ChameleonForConditionalGeneration(
        ChameleonConfig(**text, num_attention_heads=2, num_key_value_heads=2, vq_config=CHAMELEON, vocabulary_map=names)
    )
    whole.model.vqmodel = vqvae("chameleon")
    whole.save_pretrained(tmp_path)
    adapter, images = load_tokenizer(tmp_path), pixels(2)
    with torch.no_grad():
        wanted = whole.model.vqmodel.encode(images, return_dict=True).image_tokens.view(2, -1)
    assert torch.equal(adapter.encode(images).ids, wanted)
    assert {name.split(".")[0] for name in adapter.state_dict()} == {"vqvae"}


@pytest.mark.parametrize("kind", ["janus", "chameleon", "emu3"])
def test_saved_and_loaded_again_it_is_the_same(kind: str, tmp_path: Path):
    vqvae(kind).save_pretrained(tmp_path / "theirs")
    adapter, images = ReleasedTokenizerModel.from_released(tmp_path / "theirs", image_size=32), pixels(2)
    adapter.save_pretrained(tmp_path / "ours")
    again: Any = load_tokenizer(tmp_path / "ours").eval()
    ids = adapter.encode(images).ids
    assert type(again) is ReleasedTokenizerModel
    assert again.config.image_size == 32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(again.encode(images).ids, ids)
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(adapter)
    rounded: Any = load_tokenizer(tmp_path / "ours", dtype=torch.bfloat16).eval()
    assert torch.equal(rounded.encode(images).ids, ids)
    decoder = load_tokenizer(tmp_path / "ours", encoder=False)
    assert torch.equal(decoder.embed(ids).pixel, adapter.embed(ids).pixel)
    with pytest.raises(ValueError, match="without its encoder side"):
        decoder.encode(images)
    for names in (adapter.id_tensors, adapter.rounding.tensors):
        assert all(any(key.startswith(name) for key in adapter.state_dict()) for name in names)


def test_the_commands_and_the_language_model_take_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path / "cache"))
    vqvae("janus").save_pretrained("theirs")
    save_images(tmp_path / "images", 4)
    assert main(["inspect", "theirs", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["type"], facts["tokens"], facts["vocab_size"]) == ("released_tokenizer", 64, 20)
    assert main(["compare", "theirs", "--images", "images", "--out", "out"]) == 0
    assert json.loads(Path("out/comparison.json").read_text())["theirs"]["vocab_size"] == 20
    assert main(["encode", "images", "--model", "theirs", "--out", "tokens.safetensors"]) in (0, 2)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    text = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=16, **sizes))
    tokenizer: Any = load_tokenizer("theirs")
    model = SemHiTokForConditionalGeneration.from_language_model(text, tokenizer, adapter="single")
    model.save_pretrained("joint")
    again = SemHiTokForConditionalGeneration.from_pretrained("joint", dtype=torch.float32)
    ids = torch.randint(20, (5,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.embed_visual(ids), model.embed_visual(ids))


def test_bad_checkpoints_are_one_sentence(tmp_path: Path):
    vqvae("janus").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="image_size must be a positive multiple of the 4 pixels of a token, got 30"):
        ReleasedTokenizerModel.from_released(tmp_path, image_size=30)
    with pytest.raises(ValueError, match="the sides of images must be multiples of 4 pixels, got 32x30"):
        load_tokenizer(tmp_path).encode(pixels(1)[..., :30])
    with pytest.raises(ValueError, match=r"vqvae_config: model_type must be one of janus_vqgan, .*, got 'vae'"):
        ReleasedTokenizerConfig({"model_type": "vae"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_embeddings": 21}))
    with pytest.raises(ValueError, match=r"do not match the model: .*quantize\.embedding\.weight"):
        load_tokenizer(tmp_path)
