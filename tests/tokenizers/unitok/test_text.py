"""Text tokenizers: CLIP's ids as its own implementation gives them, and a small one that anybody can train again."""

from __future__ import annotations

import multiprocessing
import random
from itertools import pairwise

import pytest
import torch
from transformers import AutoTokenizer, CLIPTextModelWithProjection

from semhitok.tokenizers.unitok.text import clip_text_tokenizer, text_tower_config, train_text_tokenizer

# Printed by SimpleTokenizer of the wheel open_clip_torch 3.3.0 with the vocabulary file in it.
CLIP_IDS = {
    "": [],
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "A  Photo of\n a CAT!!": [320, 1125, 539, 320, 2368, 748],
    "It's the dog's 2,048 bones; they'll bite": [
        *(585, 568, 518, 1929, 568, 273, 267, 271, 275, 279, 9476, 282, 889, 1342, 41613)
    ],
    "café naïve über": [15304, 1097, 35689, 563, 6522, 1516],
    "日本語 text": [39121, 44353, 34002, 508, 4160],
    "🐱 emoji 👩‍🚀": [22979, 16327, 26304, 13542],
    "don't-stop 'quoted' 3.14": [847, 713, 268, 1691, 262, 27706, 262, 274, 269, 272, 275],
    "snow_white & co. #1": [2583, 318, 1579, 261, 1320, 269, 258, 272],
    "supercalifragilisticexpialidocious": [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466],
    "ΑΒΓ Ünïcödé": [138, 109, 138, 110, 138, 367, 6522, 77, 35689, 66, 7255, 67, 4166],
    "x" * 30: [32035, 32035, 32035, 32035, 32035, 32035, 5675, 22819],
}
CAPTIONS = ["a red apple on a wooden table", "Two Cats and a dog", "the dog's bone", "an apple, two apples"]


@pytest.fixture(scope="module")
def clip():
    return clip_text_tokenizer()


def test_clip_ids(clip):
    for text, ids in CLIP_IDS.items():
        assert clip(text)["input_ids"] == [49_406, *ids, 49_407]


def test_clip_size_padding_and_cutting(clip):
    assert len(clip) == 49_408
    assert clip.model_max_length == 77
    batch = clip(["a cat", "a photo of a cat"], padding=True, return_tensors="pt")
    assert batch["input_ids"][0].tolist() == [49_406, 320, 2368, 49_407, 49_407, 49_407, 49_407]
    assert batch["attention_mask"][0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    long = clip("a " * 100, truncation=True)["input_ids"]
    assert long == [49_406, *[320] * 75, 49_407]  # as the original cuts


def test_clip_saves_and_loads(clip, tmp_path):
    clip.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 77
    assert loaded(list(CLIP_IDS))["input_ids"] == clip(list(CLIP_IDS))["input_ids"]
    assert loaded.decode(loaded("A red apple")["input_ids"], skip_special_tokens=True) == "a red apple"


def _learn_by_hand(captions: list[str], merges: int) -> list[tuple[str, str]]:
    """Byte-pair encoding of plain words, written out: merge the most frequent pair; of several the first by symbol."""
    order = {symbol: number for number, symbol in enumerate(sorted("abcdefghijklmnopqrstuvwxyz"))}
    order |= {f"{symbol}</w>": number + 256 for symbol, number in list(order.items())}
    words = [[*word[:-1], f"{word[-1]}</w>"] for caption in captions for word in caption.lower().split()]
    learned: list[tuple[str, str]] = []
    for step in range(merges):
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda pair: (counts[pair], -order[pair[0]], -order[pair[1]]))
        learned.append(best)
        order["".join(best)] = 512 + step
        for word in words:
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = ["".join(best)]
                place += 1
    return learned


def test_trained_merges_are_those_of_byte_pair_encoding():
    captions = ["low lower lowest", "newer wider new", "a new low"]
    trained = train_text_tokenizer(captions, vocab_size=514 + 9)
    vocab = trained.get_vocab()
    assert len(trained) == 523
    for number, (left, right) in enumerate(_learn_by_hand(captions, 9)):
        assert vocab[left + right] == 512 + number
    assert trained("low lowest")["input_ids"][0] == trained.bos_token_id == 521
    assert trained.eos_token_id == trained.pad_token_id == 522


def test_trained_reads_any_text():
    trained = train_text_tokenizer(CAPTIONS, vocab_size=540, context_length=16)
    for text in ("a red apple", "zürich 🐱 日本", "x'y 12"):
        assert trained.decode(trained(text)["input_ids"], skip_special_tokens=True).replace(" ", "") == (
            text.replace(" ", "")
        )
    assert trained("A RED Apple")["input_ids"] == trained("a red apple")["input_ids"]
    assert len(trained("apple " * 50, truncation=True)["input_ids"]) == 16


def test_few_words_give_a_smaller_tokenizer():
    trained = train_text_tokenizer(["ab cd"], vocab_size=2048)
    assert len(trained) == 512 + 2 + 2
    assert len(trained("ab cd")["input_ids"]) == 4


def _vocabulary_of_ties(seed: int) -> list[str]:
    """Most pairs are equally frequent here; the seed orders the captions."""
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefgh", k=generator.randint(2, 7))) for _ in range(300)]
    captions = [" ".join(generator.choices(words, k=6)) for _ in range(400)]
    random.Random(seed).shuffle(captions)
    vocab = train_text_tokenizer(captions, 900).get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def test_training_is_deterministic():
    """In another process, whose hash maps are seeded anew, and in any order of the captions."""
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        elsewhere = pool.apply(_vocabulary_of_ties, (2,))
    assert elsewhere == _vocabulary_of_ties(1)
    assert len(elsewhere) == 900


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 514}, "vocab_size must be at least 515"),
        ({"context_length": 2}, "context_length must be at least 3"),
        ({"captions": ["a b", "c"]}, "no word of two letters"),
        ({"captions": []}, "no word of two letters"),
    ],
)
def test_impossible_training(options, message):
    with pytest.raises(ValueError, match=message):
        train_text_tokenizer(**{"captions": CAPTIONS, **options})


def test_tower_config_is_open_clips_text_tower(clip):
    config = text_tower_config(clip)
    with torch.device("meta"):
        tower = CLIPTextModelWithProjection(config)
    assert sum(parameter.numel() for parameter in tower.parameters()) == 123_650_304  # 12 x 768, 77 positions, 768 out
    assert config.hidden_act == "gelu"
    assert (config.num_attention_heads, config.eos_token_id, config.pad_token_id) == (12, 49_407, 49_407)


def test_tower_reads_the_first_end_token():
    """Padding with the end token changes nothing: the tower reads the first one and looks only to the left."""
    trained = train_text_tokenizer(CAPTIONS, vocab_size=530, context_length=12)
    config = text_tower_config(trained, width=16, layers=2, heads=2, embed_dim=8)
    torch.manual_seed(0)
    tower = CLIPTextModelWithProjection(config).eval()
    alone = tower(**trained("a dog", return_tensors="pt")).text_embeds
    padded = tower(**trained("a dog", padding="max_length", return_tensors="pt")).text_embeds
    unmasked = tower(trained("a dog", padding="max_length", return_tensors="pt")["input_ids"]).text_embeds
    torch.testing.assert_close(alone, padded)
    torch.testing.assert_close(alone, unmasked)
    assert alone.shape == (1, 8)
