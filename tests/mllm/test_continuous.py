"""Text from continuous features: cached greedy generation against whole passes."""

from __future__ import annotations

import torch
from tests.mllm.tiny_mllm import image_tokenizer, mllm
from tests.tiny import pixels, shake

from semhitok.mllm.continuous import ContinuousProjector


@torch.no_grad()
def test_generation_follows_the_most_likely_text_and_stops_at_its_end():
    model = mllm(tokenizer=image_tokenizer())
    torch.manual_seed(0)
    projector = ContinuousProjector.for_model(model)
    shake(projector, 0.5)
    vocabulary = model.vocabulary
    span = [vocabulary.image_begin_id, *[vocabulary.placeholder_id] * vocabulary.image_tokens, vocabulary.image_end_id]
    prompts = torch.tensor([[4, *span, 7], [9, *span, 5]])
    images = pixels(2, seed=4)
    embeds, wanted = projector.embeds(model, prompts, images), prompts
    for _ in range(5):
        new = wanted[:, prompts.shape[1] :]
        hidden = model.body(inputs_embeds=torch.cat([embeds, model.embed(new)], dim=1)).last_hidden_state
        assert hidden is not None
        logits = model.lm_head(hidden[:, -1])[:, : vocabulary.text_size]
        wanted = torch.cat([wanted, logits.argmax(dim=-1, keepdim=True)], dim=1)
    model.generation_config.eos_token_id = None
    found = projector.generate(model, prompts, images, max_new_tokens=5)
    assert found.equal(wanted)
    assert not found[0, -5:].equal(found[1, -5:])
    # The first row ends at the first id that the second has not; the other goes on to the limit.
    first, second = (row.tolist() for row in wanted[:, prompts.shape[1] :])
    place, end = next((place, each) for place, each in enumerate(first) if each not in second)
    model.generation_config.eos_token_id = [end]
    ended = projector.generate(model, prompts, images, max_new_tokens=5)
    assert ended[1].equal(wanted[1])
    assert ended[0, prompts.shape[1] :].tolist() == first[:place] + [end] * (5 - place)
