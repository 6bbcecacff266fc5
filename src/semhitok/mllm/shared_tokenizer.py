"""Checkpoints that share the weights of a bundled image tokenizer.

A unified model includes its tokenizer, and ``save_pretrained`` writes all of it, which would double the size of the small bundled
models. Their configuration instead names the bundled tokenizer in ``shared_tokenizer`` and its fingerprint, and its weights are
loaded from there. A loaded model is complete again.
"""

from __future__ import annotations

import torch
from transformers import AutoModel, PreTrainedModel

from semhitok.storage.weights import load_weights
from semhitok.tokenizers.checkpoints import builtin_names, bundled_folder, find_model_type
from semhitok.tokenizers.fingerprint import tokenizer_fingerprint

PREFIX = "image_tokenizer."


def find_bundled(tokenizer: PreTrainedModel) -> str | None:
    """The bundled tokenizer that produces the same ids for every image, or None."""
    wanted, kind = tokenizer_fingerprint(tokenizer), tokenizer.config.model_type
    alike = [name for name in builtin_names() if find_model_type(bundled_folder(name)) == kind]
    return next((name for name in alike if tokenizer_fingerprint(_load(name)) == wanted), None)


@torch.no_grad()
def load_shared_weights(image_tokenizer: PreTrainedModel, name: str, fingerprint: str | None) -> None:
    """Copy the weights of a bundled tokenizer into the image tokenizer of a model whose checkpoint does not hold them.

    Args:
        image_tokenizer: changed in place; without its encoder side, only the weights that it has are copied.
        name: the bundled tokenizer that the model's configuration names.
        fingerprint: fingerprint of the tokenizer that the model was trained with.

    Raises:
        ValueError: no bundled tokenizer has that name, or its fingerprint differs.
    """
    if name not in builtin_names():
        raise ValueError(f"the model shares the tokenizer {name!r}, which is not among {', '.join(builtin_names())}")
    bundled = _load(name)
    found = tokenizer_fingerprint(bundled)
    if found != fingerprint:
        raise ValueError(
            f"the model was trained on a tokenizer {name!r} with fingerprint {fingerprint}, the bundled one has {found}: "
            "they do not match"
        )
    for part, module in image_tokenizer.named_modules():
        if part in (
            image_tokenizer._keep_in_fp32_modules_strict or ()
        ):  # transformers looks at a checkpoint's own weights alone
            module.float()
    own = image_tokenizer.state_dict()
    image_tokenizer.load_state_dict({key: tensor for key, tensor in bundled.state_dict().items() if key in own})


def _load(name: str) -> PreTrainedModel:
    return load_weights(AutoModel.from_pretrained, bundled_folder(name), dtype=torch.float32)
