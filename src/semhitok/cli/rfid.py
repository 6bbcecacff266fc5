"""``semhitok rfid``: the rFID of a tokenizer on many images, by a named protocol, on one or more processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semhitok.cli import report_error
from semhitok.cli.arguments import Count, Device, Limit, default
from semhitok.storage.cache import cache_directory, weights_path

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"


@dataclass(frozen=True)
class Arguments:
    """Measure the rFID of a tokenizer: the Fréchet distance between images and their reconstructions.

    Both are cropped alike. Prints the figure with protocol, crop, number of images and a hash of the weights. Several GPUs: torchrun
    --nproc-per-node N -m semhitok.cli.rfid CHECKPOINT DATA ...; the figure does not depend on their number.
    """

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Folder of a model, or of a run, whose last finished stage is used; a hub id; or the name of a bundled checkpoint."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Images, such as the 50,000 of ImageNet's validation set: folder, tars, parquet file or Hugging Face data set."""
    protocol: Literal["torch-fidelity", "adm", "clean-fid"] = "torch-fidelity"
    """torch-fidelity is what most tokenizer papers report; adm crops as ADM's evaluation does; clean-fid resizes with antialiasing."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE"), default("the file of that name in the cache")] = None
    """torch-fidelity's Inception weights, weights-inception-2015-12-05-6726825d.pth."""
    limit: Limit = None
    """Maximum number of images, evenly spaced. The distance depends on it."""
    batch_size: Count = 32
    """Number of images per batch of each process."""
    device: Device = None
    """Device to run on: cpu, cuda, or the number of a GPU, such as 1 (the same as cuda:1)."""
    collective_timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="")] = None
    """Under torchrun: end if a rank hangs for so long."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="semhitok rfid")
    from semhitok import distributed

    with distributed.ended_together(partial(report_error, "rfid")):
        _measure(options)
        distributed.leave_together()
    distributed.stop_watching()
    distributed.destroy_distributed()
    return 0


def _measure(options: Arguments) -> None:
    # Imported here, because help needs no models.
    from semhitok import distributed
    from semhitok.cli.progress import progress_bars
    from semhitok.data.sources import open_source
    from semhitok.evaluation.tokenizer.rfid import measure_rfid
    from semhitok.inference.loading import load_tokenizer
    from semhitok.metrics.frechet import inception_features

    device = distributed.init_distributed(options.device, timeout=options.collective_timeout)
    distributed.watch_other_ranks()
    weights = options.weights or weights_path(WEIGHTS)
    if not weights.is_file():
        raise ValueError(f"rFID needs Inception weights, but there is no file {weights}: fetch it from {WEIGHTS_URL}")
    source = open_source(options.data)
    model = load_tokenizer(options.checkpoint, str(device))
    extractor = inception_features(weights, protocol=options.protocol, device=device)
    distributed.require_agreement({"data": source.fingerprint, "protocol": extractor.protocol})
    with progress_bars() as advance:
        found = measure_rfid(
            model,
            source,
            extractor,
            protocol=options.protocol,
            limit=options.limit,
            batch_size=options.batch_size,
            cache=cache_directory() / "rfid",
            progress=advance if distributed.is_main() else None,
        )
    if distributed.is_main():
        print(json.dumps(asdict(found), indent=1) if options.json else found.sentence())


if __name__ == "__main__":
    import sys

    from semhitok.cli import main as semhitok

    sys.exit(semhitok(["rfid", *sys.argv[1:]]))
