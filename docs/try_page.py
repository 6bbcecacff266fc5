"""Complete the page docs/try/: the tokenizer as ONNX, onnxruntime-web, and the example pictures, all beside it.

python docs/try_page.py [OUT] [--model mini] [--int8]

Without OUT, models/, runtime/ and examples/ are put into docs/try/ itself (git ignores them); with it, the whole page is
written there. Any static file server shows the result: python -m http.server --directory docs/try
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "try"
PHOTOGRAPHS = HERE.parent / "examples" / "photographs"
OWN = ("index.html", "try.css", "page.js", "resample.js", "tokenizer.js")
MODELS = ("metadata.json", "encoder.onnx", "decoder.onnx")

RUNTIME = "onnxruntime-web"
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def main() -> int:
    """Build the page; a failure is one sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=PAGE, help="folder to write (default: docs/try itself)")
    parser.add_argument("--model", default="mini", help="tokenizer: a bundled name, a folder, a run")
    parser.add_argument("--int8", action="store_true", help="take the smaller files, whose ids differ from Python's")
    options = parser.parse_args()
    try:
        build(options.out, options.model, int8=options.int8)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for file in sorted(options.out.rglob("*")):
        if file.is_file():
            print(f"{file.relative_to(options.out)!s:44} {file.stat().st_size / 2**20:8.2f} MB")
    return 0


def build(out: Path, model: str = "mini", *, int8: bool = False) -> None:
    """Write the page and all that it loads.

    Raises:
        ValueError: the model cannot be exported, or onnxruntime-web cannot be had or is another one than expected.
        OSError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() != PAGE.resolve():
        for name in OWN:
            shutil.copy(PAGE / name, out / name)
    put_runtime(out / "runtime")
    put_examples(out / "examples")
    put_models(out / "models", model, int8=int8)


def put_models(folder: Path, model: str, *, int8: bool = False) -> None:
    """Export the tokenizer."""
    from semhitok.export.agreement import synthetic_images
    from semhitok.export.onnx_files import QUANTIZED, export_onnx
    from semhitok.inference.loading import load_tokenizer

    tokenizer = load_tokenizer(model, "cpu")
    images = synthetic_images(8, tokenizer.config.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        export_onnx(tokenizer, Path(scratch) / "onnx", name=Path(model).name, images=images)
        for name in MODELS:
            taken = QUANTIZED.get(name.removesuffix(".onnx"), name) if int8 else name
            shutil.copy(Path(scratch) / "onnx" / taken, folder / name)


def put_runtime(folder: Path) -> None:
    """Take onnxruntime-web from the npm registry, of this version and with this checksum; what is there is kept."""
    stamp = folder / "version.txt"
    if stamp.is_file() and stamp.read_text() == VERSION and all((folder / name).is_file() for name in RUNTIME_FILES):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        archive = _packed(Path(scratch))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise ValueError(f"{RUNTIME} {VERSION} from npm has the SHA-512 {digest}, expected {SHA512}")
        with tarfile.open(archive) as tar:
            for name in RUNTIME_FILES:
                member = tar.extractfile(f"package/dist/{name}")
                assert member is not None, "a file"
                (folder / name).write_bytes(member.read())
    stamp.write_text(VERSION)


def _packed(scratch: Path) -> Path:
    if shutil.which("npm") is None:
        raise ValueError(f"{RUNTIME} comes from npm, which is not installed (Debian: apt-get install npm)")
    command = ["npm", "pack", f"{RUNTIME}@{VERSION}", "--silent", "--pack-destination", str(scratch)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=scratch, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise ValueError(f"npm did not deliver {RUNTIME} {VERSION}: {lines[-1] if lines else error}") from error
    return next(scratch.glob("*.tgz"))


def put_examples(folder: Path) -> None:
    """The photographs of ``examples/``, with their list."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    for file in files:
        shutil.copy(file, folder / file.name)
    listed = [{"file": file.name, "name": file.stem.replace("_", " ")} for file in files]
    (folder / "examples.json").write_text(json.dumps(listed, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
