"""Quantizers: features to codes and ids. One file per idea; all return ``semhitok.types.Quantized``.

``base`` defines the protocol. ``ema`` is the semantic codebook, ``flat`` has vanilla and normalised codebooks; ``hierarchical`` is
SGHC, with its joint ids in ``layout``, its controls in ``grouping`` and the choice of sizes in ``allotment``; ``multi_codebook``
(UniTok, FQGAN) and ``residual`` have several codes per token; ``index_backpropagation`` (IBQ), ``projected`` (SimVQ, VQGAN-LC) and
``shared_index`` (TokenFlow) are other codebooks; ``finite_scalar`` (FSQ) and ``binary`` (LFQ, BSQ, WeTok) have none. They are built
from ``lookup``, ``kmeans``, ``grouped``, ``dead_codes`` and ``entropy``; ``usage`` measures them.

A new quantizer is one file that defines a ``base.TokenQuantizer``, and a line in one of the tables below, whose keys are the
names used in tokenizer configurations; a file outside this package calls ``register_quantizer``.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from semhitok.quantizers.base import Quantizer, TokenQuantizer
from semhitok.quantizers.binary import BinaryQuantizer
from semhitok.quantizers.ema import EMAQuantizer, UpdateRule
from semhitok.quantizers.finite_scalar import FiniteScalarQuantizer
from semhitok.quantizers.flat import NormalizedQuantizer, VanillaQuantizer
from semhitok.quantizers.hierarchical import HierarchicalQuantizer
from semhitok.quantizers.index_backpropagation import IndexBackpropagationQuantizer
from semhitok.quantizers.kmeans import Assignments
from semhitok.quantizers.lookup import nearest_code, nearest_cosine
from semhitok.quantizers.multi_codebook import MultiCodebookQuantizer
from semhitok.quantizers.projected import ProjectedQuantizer
from semhitok.quantizers.residual import ResidualQuantizer
from semhitok.quantizers.shared_index import SharedIndexQuantizer
from semhitok.quantizers.usage import CodeUsage, underused_subcodebooks

__all__ = [
    "ONE_CODE_PER_TOKEN",
    "OWN_QUANTIZERS",
    "SEVERAL_CODES_PER_TOKEN",
    "VIT_QUANTIZERS",
    "Assignments",
    "BinaryQuantizer",
    "CodeUsage",
    "EMAQuantizer",
    "FiniteScalarQuantizer",
    "HierarchicalQuantizer",
    "IndexBackpropagationQuantizer",
    "MultiCodebookQuantizer",
    "NormalizedQuantizer",
    "OwnQuantizer",
    "ProjectedQuantizer",
    "Quantizer",
    "QuantizerSettings",
    "ResidualQuantizer",
    "SharedIndexQuantizer",
    "TokenQuantizer",
    "VanillaQuantizer",
    "build_quantizer",
    "nearest_code",
    "nearest_cosine",
    "quantizer_names",
    "read_quantizer_file",
    "register_quantizer",
    "underused_subcodebooks",
]


@dataclass(frozen=True)
class QuantizerSettings:
    """Settings of all quantizers that tokenizers can choose; each quantizer uses those it needs.

    Attributes:
        codebook_size: K, codes of one codebook.
        dim: D, channels of the features.
        codes_per_token: C.
        decay, update_rule: settings of the EMA codebook.
        levels: levels of each channel for FSQ.
        semantic_dim: the leading channels of the features that are semantic, for the shared index.
        table_dim: channels of the frozen table behind a projection; None for those of the features.
        entropy_temperature: temperature of the entropy terms.
    """

    codebook_size: int
    dim: int
    codes_per_token: int = 1
    decay: float = 0.99
    update_rule: UpdateRule = "sum_count"
    levels: tuple[int, ...] = ()
    semantic_dim: int = 0
    table_dim: int | None = None
    entropy_temperature: float = 0.01


Build = Callable[[QuantizerSettings], TokenQuantizer]

ONE_CODE_PER_TOKEN: dict[str, Build] = {
    "ema": lambda s: EMAQuantizer(s.codebook_size, s.dim, decay=s.decay, update_rule=s.update_rule),
    "vanilla": lambda s: VanillaQuantizer(s.codebook_size, s.dim),
    "normalized": lambda s: NormalizedQuantizer(s.codebook_size, s.dim),
}
SEVERAL_CODES_PER_TOKEN: dict[str, Build] = {
    "multi_codebook": lambda s: MultiCodebookQuantizer(s.codes_per_token, s.codebook_size, s.dim),
    "residual": lambda s: ResidualQuantizer(s.codes_per_token, s.codebook_size, s.dim),
}


# For the ViT tokenizer only, whose training weights each of a quantizer's own losses.
VIT_QUANTIZERS: dict[str, Build] = {
    "factorized": lambda s: MultiCodebookQuantizer(s.codes_per_token, s.codebook_size, s.dim, disentangle=True),
    "ibq": lambda s: IndexBackpropagationQuantizer(s.codebook_size, s.dim, temperature=s.entropy_temperature),
    "projected": lambda s: ProjectedQuantizer(s.codebook_size, s.table_dim or s.dim, s.dim),
    "shared_index": lambda s: SharedIndexQuantizer(s.codebook_size, s.semantic_dim, s.dim - s.semantic_dim),
    "fsq": lambda s: FiniteScalarQuantizer(s.levels),
    "lfq": lambda s: BinaryQuantizer(1, s.dim, temperature=s.entropy_temperature),
    "bsq": lambda s: BinaryQuantizer(1, s.dim, spherical=True, temperature=s.entropy_temperature),
    "grouped_bits": lambda s: BinaryQuantizer(
        s.codes_per_token, s.dim // s.codes_per_token, temperature=s.entropy_temperature
    ),
}


def quantizer_names() -> list[str]:
    """The names that ``build_quantizer`` knows."""
    return list(ONE_CODE_PER_TOKEN | VIT_QUANTIZERS | SEVERAL_CODES_PER_TOKEN)


_BUILT_IN = frozenset(quantizer_names())


@dataclass(frozen=True)
class OwnQuantizer:
    """How a registered quantizer is trained in a comparison.

    Attributes:
        code_dim: channels that it quantizes.
        weights: weight of each of its losses.
    """

    code_dim: int
    weights: Mapping[str, float]


OWN_QUANTIZERS: dict[str, OwnQuantizer] = {}
"""Quantizers of users by name, filled by ``register_quantizer``."""


def register_quantizer(
    name: str, build: Build, *, code_dim: int = 8, weights: Mapping[str, float] | None = None
) -> None:
    """Make a quantizer known to the ViT tokenizer under a name of its own; see ``examples/own_quantizer.py``.

    Registering it again replaces the earlier one.

    Args:
        name: its name.
        build: builds it from the settings of a tokenizer.
        code_dim, weights: see ``OwnQuantizer``; without weights, 1 for ``codebook`` and 0.25 for ``commitment``.

    Raises:
        ValueError: the name is that of a quantizer of this package.
    """
    if name in _BUILT_IN:
        raise ValueError(f"there is already a quantizer called {name!r}: give yours another name")
    VIT_QUANTIZERS[name] = build
    OWN_QUANTIZERS[name] = OwnQuantizer(code_dim, {"codebook": 1.0, "commitment": 0.25} if weights is None else weights)


def read_quantizer_file(path: str | Path) -> list[str]:
    """Run a Python file of the user's that registers quantizers; the names that it has registered.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a Python file, fails, or registers nothing.
    """
    path, before = Path(path), dict(OWN_QUANTIZERS)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"own_quantizer_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file that registers a quantizer")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look it up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} failed with {type(error).__name__}: {error}") from error
    found = [name for name, own in OWN_QUANTIZERS.items() if own is not before.get(name)]
    if not found:
        raise ValueError(f"{path} registers no quantizer: it must call register_quantizer (semhitok.quantizers)")
    return found


def build_quantizer(kind: str, settings: QuantizerSettings) -> TokenQuantizer:
    """Build the quantizer of that name.

    Raises:
        ValueError: the name is unknown, or several codes per token are requested from a quantizer that has one.
    """
    if kind in ONE_CODE_PER_TOKEN:
        if settings.codes_per_token != 1:
            raise ValueError(f"quantizer {kind} has one code per token, got {settings.codes_per_token}")
        return ONE_CODE_PER_TOKEN[kind](settings)
    several = SEVERAL_CODES_PER_TOKEN | VIT_QUANTIZERS
    if kind in several:
        return several[kind](settings)
    raise ValueError(f"quantizer must be one of {', '.join(quantizer_names())}, got {kind}")
