"""Configuration of a released tokenizer: that of its class of transformers, and the size of images."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from semhitok.storage.configuration_fields import checked_fields, in_field
from semhitok.tokenizers.released.kinds import KINDS, ReleasedKind, patch_size
from semhitok.tokenizers.token_grid import TokenGrid


class ReleasedTokenizerConfig(PreTrainedConfig, TokenGrid):
    """A released tokenizer.

    Args:
        vqvae_config: the configuration of a ``JanusVQVAE``, ``ChameleonVQVAE`` or ``Emu3VQVAE``, or its dict with ``model_type``.
        image_size: side in pixels of the images that ``encode`` expects by default; None for what the class was made for.
        encoder: False for a model that only decodes and embeds ids.
        stages: not used, as nothing is trained here.
        provenance: licence, training data and source of the weights.

    Raises:
        ValueError: a value is out of range, or the configuration is of another class.
    """

    model_type = "released_tokenizer"
    codes_per_token = 1

    @checked_fields
    def __init__(
        self,
        vqvae_config: PreTrainedConfig | dict[str, Any] | None = None,
        image_size: int | None = None,
        encoder: bool = True,
        stages: list[str] | None = None,
        provenance: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        with in_field("vqvae_config"):
            self.vqvae_config = _of_class(vqvae_config)
        self.image_size = self.kind.image_size(self.vqvae_config) if image_size is None else image_size
        self.encoder = encoder
        self.stages = list(stages or [])
        self.provenance = dict(provenance or {})
        if self.image_size < 1 or self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a positive multiple of the {self.patch_size} pixels of a token, got {self.image_size}"
            )
        super().__init__(**kwargs)

    @property
    def kind(self) -> ReleasedKind:
        """How the class is called."""
        return KINDS[self.vqvae_config.model_type]

    @property
    def vocab_size(self) -> int:
        """Number of codes."""
        return self.kind.vocab_size(self.vqvae_config)

    @property
    def patch_size(self) -> int:
        """Side of a token in pixels."""
        return patch_size(self.vqvae_config)

    def to_dict(self) -> dict[str, Any]:
        """As in transformers, with the nested configuration as a dict that says its ``model_type``."""
        return super().to_dict() | {"vqvae_config": self.vqvae_config.to_dict()}


def _of_class(given: PreTrainedConfig | dict[str, Any] | None) -> PreTrainedConfig:
    if isinstance(given, PreTrainedConfig):
        fields, found = None, given.model_type
    else:
        fields = {"model_type": "janus_vqgan"} if given is None else dict(given)
        found = fields.pop("model_type", None)
    if found not in KINDS:
        raise ValueError(f"model_type must be one of {', '.join(KINDS)}, got {found!r}")
    if fields is None:
        assert isinstance(given, PreTrainedConfig)
        return given
    return KINDS[found].config_class(**fields)
