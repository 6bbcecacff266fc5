"""Identification of the image tokenizer that produced ids."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def tokenizer_fingerprint(tokenizer: nn.Module) -> str:
    """Hex digest of names, shapes and values of the tensors that determine the ids.

    The tokenizer declares them in ``id_tensors`` (see ``semhitok.tokenizers.protocol.Tokenizer``); without a declaration, all
    tensors are included.

    Raises:
        ValueError: the tokenizer was loaded without its encoder side.
    """
    if getattr(tokenizer.config, "encoder", True) is False:
        raise ValueError(
            "a tokenizer without its encoder side (encoder=False) produces no ids, so it has no fingerprint"
        )
    deciding: tuple[str, ...] = getattr(tokenizer, "id_tensors", ("",))
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if name.startswith(deciding):
            values = tensor.detach().float().cpu().contiguous()
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
