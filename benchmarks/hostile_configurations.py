"""Tampered checkpoints against the loaders: ``python -m benchmarks.hostile_configurations [count]``.

Each trial is a function of its number: one field of one file of a checkpoint is replaced, removed or added, or a whole file is. It
must load or be refused in one sentence; anything else, more than 5 seconds or more than 1 GiB is reported as a fault.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import json
import pickle
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from benchmarks.checkpoint_subjects import SUBJECTS
from benchmarks.hostile_data import ATOMS, hostile
from benchmarks.watched import campaign
from safetensors.torch import load_file, save_file
from transformers.utils import logging

SEED = 20_261_129
NUMBERS = (-1, 2, 3, 0.5, 10**5, 10**9, 10**18, 10**30, -(10**9), 2**31, 1e-300)
TEXTS = (
    "auto",
    "float16",
    "load",
    "gelu",
    "eager",
    "../../etc",
    "semhitok",
    "unitok",
    "siglip_vision_model",
    "flash_attention_2",
)
VALUES = (*ATOMS, *NUMBERS, *TEXTS, [], {}, [[]], [1] * 3, {"model_type": "bert"}, {"model_type": "semhitok"})
ADDED = (
    *(
        "to_dict",
        "num_labels",
        "id2label",
        "attn_implementation",
        "quantization_config",
        "transformers_weights",
        "auto_map",
    ),
    *(
        "per_layer_config",
        "fusion_config",
        "architectures",
        "dtype",
        "torch_dtype",
        "vocab_size",
        "grid",
        "__class__",
        "stages",
    ),
    *(
        "provenance",
        "output_attentions",
        "problem_type",
        "configuration_files",
        "adapter_kwargs",
        "num_hidden_layers",
        "__init__",
    ),
)
DOCUMENTS = (
    *("[]", "3", '"text"', "null", "", "{", "{}", "NaN", '{"a": 1e999}', "\ufeff{}", "[" * 100_000, '{"a":' * 100_000),
    *('{"model_type": "bert"}', '{"model_type": ["semhitok"]}', '{"model_type": null, "a": ' + "9" * 5000 + "}"),
)
TEMPLATES = (
    *("{% if", "{{ x", "{% endfor %}", "{{" * 5000, "{{ nosuch.field }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"),
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(999) %}word {% endfor %}{% endfor %}",
    *(
        "{{ 'x' * 10**10 }}",
        "{{ 10**(10**10) }}",
        "{% if false %}{{ 'x'|center(10**10) }}{% endif %}",
        "{{ '%9999999999d' % 1 }}",
    ),
    *("{{ '{:>9999999999}'.format(1) }}", "{{ 'x'.ljust(10**10) }}", "{{ [0] * 10**10 }}", "{{ lipsum(10**6) }}"),
    "{% set s = 'xxxxxxxx' %}" + "{% set s = s ~ s %}" * 60 + "{{ s }}",
    "{% set s = 'xxxxxxxx' %}" + "{% set s = s|replace('x', s) %}" * 9 + "{{ s }}",
    "{% set a = ['x'] %}" + "{% set a = [a, a, a, a, a, a, a, a] %}" * 20 + "{{ a }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(80) }}",
    "{% for a in 'xxxxxxxxxxxxxxxxxxxx' %}" * 12 + "y" + "{% endfor %}" * 12,
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    *(
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ self }}",
        "{% include 'x' %}",
        "{% import 'os' as x %}",
    ),
)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


class Campaign:
    """Good checkpoints of all subjects in a folder, and the trials on them."""

    def __init__(self, folder: Path) -> None:
        self.good, self.bad, self.marker = folder / "good", folder / "bad", folder / "ran"
        for name, subject in SUBJECTS.items():
            (self.good / name).mkdir(parents=True)
            subject.write(self.good / name)
            subject.use(self.good / name)

    def trial(self, number: int) -> str:
        """``read``, ``refused``, or what is wrong."""
        random = Random(SEED + number)
        name = random.choice(list(SUBJECTS))
        shutil.rmtree(self.bad, ignore_errors=True)
        shutil.copytree(self.good / name, self.bad)
        what = f"{name}: {self._tamper(random)}"
        try:
            SUBJECTS[name].use(self.bad)
        except (ValueError, OSError) as error:
            text = str(error)
            about = str(self.bad) in text or text.startswith("the chat template ")
            if not about or "\n" in text or len(text) > 2000:
                return f"{what}: no sentence about a place: {text[:200]!r}"
            return "refused"
        except BaseException as error:
            return f"{what}: {type(error).__name__}: {str(error)[:200]}"
        return f"{what}: code was run" if self.marker.exists() else "read"

    def _tamper(self, random: Random) -> str:
        files = sorted(path for path in self.bad.rglob("*.json") if path.name not in ("tokenizer.json", "vocab.json"))
        kind = random.random()
        if kind < 0.08:
            return self._tamper_weights(random)
        if (kind < 0.16 and (self.bad / "chat_template.jinja").exists()) or kind < 0.02:
            template = random.choice(TEMPLATES)
            (self.bad / "chat_template.jinja").write_text(template)
            return f"template {template[:60]}"
        path = (
            self.bad / "config.json"
            if (self.bad / "config.json") in files and random.random() < 0.7
            else random.choice(files)
        )
        if kind < 0.24:
            document = random.choice(DOCUMENTS)
            path.write_text(document)
            return f"{path.name} is {document[:40]}"
        fields = json.loads(path.read_text())
        what = _tamper_field(fields, random)
        path.write_bytes(json.dumps(fields).encode("utf-8", "surrogatepass"))
        return f"{path.name} {what}"

    def _tamper_weights(self, random: Random) -> str:
        weights = self.bad / "model.safetensors"
        kind = random.choice(["pickle", "cut", "bytes", "bin", "nan", "integer", "complex", "fewer", "index"])
        if not weights.exists() or kind == "pickle":
            weights.write_bytes(pickle.dumps(Payload(self.marker)))
        elif kind == "cut":
            weights.write_bytes(weights.read_bytes()[: random.randrange(2000)])
        elif kind == "bytes":
            weights.write_bytes(random.randbytes(8) + weights.read_bytes()[8:])
        elif kind == "bin":
            weights.unlink()
            torch.save({"a": Payload(self.marker)}, self.bad / "pytorch_model.bin")
        elif kind == "index":
            index = {"weight_map": {"a": random.choice(["../a.safetensors", "/etc/passwd", 3, "a\0b", "\ud800"])}}
            (self.bad / "model.safetensors.index.json").write_text(
                json.dumps(random.choice([index, [], {"weight_map": 3}]))
            )
        else:
            tensors = load_file(weights)
            key = random.choice(sorted(tensors))
            change = {
                "nan": lambda tensor: torch.full_like(tensor, random.choice([float("nan"), float("inf")])),
                "integer": lambda tensor: tensor.to(random.choice([torch.int64, torch.uint8, torch.bool])),
                "complex": lambda tensor: tensor.to(torch.complex64),
                "fewer": lambda tensor: tensor.flatten()[:1].clone(),
            }[kind]
            save_file(tensors | {key: change(tensors[key])}, weights, metadata={"format": "pt"})
        return f"weights {kind}"


def _tamper_field(fields: Any, random: Random) -> str:
    """Change one field in place, at any depth."""
    if not isinstance(fields, dict):
        return "has no fields"
    places = list(_places(fields))
    inner: Any
    key: Any
    inner, key = random.choice(places) if places else (fields, "a")
    action = random.random()
    if action < 0.1:
        inner.pop(key)
        return f"without {key}"
    if action < 0.25 and isinstance(inner, dict):
        key = random.choice(ADDED)
    value = random.choice(VALUES) if random.random() < 0.85 else hostile(np.random.default_rng(random.randrange(2**32)))
    inner[key] = value
    return f"{key} is {str(value)[:60]}"


def _places(value: Any):
    """All fields and elements, as the object that holds them and their key."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(entries):
        yield value, key
        yield from _places(each)


def run(folder: Path, numbers: Sequence[int]) -> tuple[Any, list[str]]:
    """Outcomes and faults of the trials; needs a process without threads."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.set_verbosity(50)  # none of its warnings
    logging.disable_progress_bar()
    return campaign(Campaign(folder).trial, numbers)


def main(arguments: list[str]) -> int:
    """Run the campaign, or a single trial: ``-N`` for the trial of number N."""
    count, begun = int(arguments[0]) if arguments else 3000, time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        outcomes, faults = run(Path(folder), range(count) if count >= 0 else [-count])
    print(
        f"{sum(outcomes.values())} tampered checkpoints: {outcomes['read']} read, {outcomes['refused']} refused, "
        f"{len(faults)} faults; {time.perf_counter() - begun:.0f} s"
    )
    print(*faults[:200], sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
