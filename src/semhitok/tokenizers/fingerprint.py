"""Which image tokenizer made given ids."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

# Parts that have no say in the ids: decoders are fine-tuned after ids have been written, text towers only during training.
WITHOUT = ("decoder", "text")


def tokenizer_fingerprint(tokenizer: nn.Module) -> str:
    """Hex digest of names, shapes and values of everything that decides the ids: encoder side and codebooks.

    Raises:
        ValueError: the tokenizer was loaded without its encoder side.
    """
    if getattr(tokenizer.config, "encoder", True) is False:
        raise ValueError("a tokenizer without its encoder side (encoder=False) makes no ids, so it has no fingerprint")
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if not any(part in name for part in WITHOUT):
            values = tensor.detach().float().cpu().contiguous()
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
