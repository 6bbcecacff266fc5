import math

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from semhitok.losses import sigmoid_contrastive_loss, softmax_contrastive_loss


def test_equals_transformers_siglip():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 6, "projection_size": 16}
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10)
        ids, pixels = torch.randint(0, 20, (5, 6)), torch.randn(5, 3, 8, 8)
        outputs = model(input_ids=ids, pixel_values=pixels, return_loss=True)
        image, text_embedding = 7 * outputs.image_embeds, 3 * outputs.text_embeds  # lengths must not matter
        loss = sigmoid_contrastive_loss(image, text_embedding, model.logit_scale.exp(), model.logit_bias)
    torch.testing.assert_close(loss, outputs.loss.reshape(()))


def test_hand_computed():
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = sigmoid_contrastive_loss(image, image, torch.tensor(4.0), torch.tensor(-1.0))
    matching, other = math.log(1 + math.exp(-3)), math.log(1 + math.exp(-1))
    assert loss.item() == pytest.approx(matching + other, rel=1e-5)


def test_autocast_does_not_change_it_and_shapes_must_match():
    image, text = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    scale, bias = torch.tensor(20.0), torch.tensor(-10.0)
    plain = sigmoid_contrastive_loss(image, text, scale, bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sigmoid_contrastive_loss(image, text, scale, bias), plain)
    with pytest.raises(ValueError, match="embeddings of the same shape"):
        sigmoid_contrastive_loss(image, text[:3], scale, bias)


def test_softmax_equals_transformers_clip():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 6, "eos_token_id": 19}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 8, "patch_size": 4}, projection_dim=8)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        model.logit_scale.fill_(math.log(30))
        ids, pixels = torch.randint(0, 20, (5, 6)), torch.randn(5, 3, 8, 8)
        outputs = model(input_ids=ids, pixel_values=pixels, return_loss=True)
        image, text_embedding = 7 * outputs.image_embeds, 3 * outputs.text_embeds  # lengths must not matter
        loss = softmax_contrastive_loss(image, text_embedding, model.logit_scale.exp())
    torch.testing.assert_close(loss, outputs.loss.reshape(()))


def test_softmax_hand_computed():
    image, text = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # Image 0 sees logits (2, 2), image 1 (0, 0); either text sees (2, 0) and is image 0's and image 1's.
    texts = 0.5 * (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2)))
    loss = softmax_contrastive_loss(image, text, torch.tensor(2.0))
    assert loss.item() == pytest.approx(0.5 * (math.log(2) + texts), rel=1e-6)


def test_softmax_in_autocast_and_other_shapes():
    image, text = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    plain = softmax_contrastive_loss(image, text, torch.tensor(20.0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(softmax_contrastive_loss(image, text, torch.tensor(20.0)), plain)
    with pytest.raises(ValueError, match="embeddings of the same shape"):
        softmax_contrastive_loss(image, text[:3], torch.tensor(20.0))
