"""``torch.export`` of ``decode``: the graph from ids to images, for any number of images."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model
from tests.tiny_unitok import tiny_unitok
from torch import Tensor, nn


class Decoder(nn.Module):
    def __init__(self, tokenizer: nn.Module) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokenizer.decode(ids)


@pytest.mark.parametrize("make", [tiny_model, tiny_unitok])
def test_the_exported_graph_decodes_batches_of_any_size(make):
    tokenizer = make().eval()
    codes = [tokenizer.codes_per_token] if tokenizer.codes_per_token > 1 else []
    ids = torch.randint(
        tokenizer.vocab_size, (5, tokenizer.num_tokens, *codes), generator=torch.Generator().manual_seed(0)
    )
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(Decoder(tokenizer), (ids[:2],), dynamic_shapes=shapes).module()
    for count in (1, 2, 5):
        assert torch.equal(exported(ids[:count]), tokenizer.decode(ids[:count]))
    with pytest.raises(ValueError, match="ids must lie in"):
        tokenizer.decode(ids + tokenizer.vocab_size)
