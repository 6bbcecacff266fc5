"""Which image tokenizer made given ids."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def tokenizer_fingerprint(tokenizer: nn.Module) -> str:
    """Hex digest of names, shapes and values of the tensors that decide the ids.

    These are the ones that the tokenizer declares in ``id_tensors`` (see ``semhitok.tokenizers.protocol.Tokenizer``); of a
    tokenizer that declares none all tensors count.

    Raises:
        ValueError: the tokenizer was loaded without its encoder side.
    """
    if getattr(tokenizer.config, "encoder", True) is False:
        raise ValueError("a tokenizer without its encoder side (encoder=False) makes no ids, so it has no fingerprint")
    deciding: tuple[str, ...] = getattr(tokenizer, "id_tensors", ("",))
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if name.startswith(deciding):
            values = tensor.detach().float().cpu().contiguous()
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
