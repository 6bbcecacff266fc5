"""What the server does, in four requests: ``make demo-server``. Any HTTP client will do; this one is Python's own."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

PICTURE = Path(__file__).parent / "scenes" / "scene-00.jpg"
SERVE = "import sys; from semhitok.cli import main; sys.exit(main())"


def post(url: str, value: dict[str, Any]) -> dict[str, Any]:
    """Send JSON, receive JSON."""
    request = urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def demonstrate(url: str, out: Path) -> None:
    """Ask about a picture, draw an image, and send the picture to tokens and back; pictures go to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    picture = f"data:image/jpeg;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"
    question = "What kind of thing was put into the picture?"
    parts = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
    answer = post(f"{url}/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]})
    print(f"{PICTURE.name}: {question} {answer['choices'][0]['message']['content']}")

    drawn = post(f"{url}/v1/images/generations", {"prompt": "a rabbit", "n": 1, "seed": 1})
    (out / "rabbit.png").write_bytes(base64.b64decode(drawn["data"][0]["b64_json"]))

    tokens = post(f"{url}/v1/tokenize", {"images": [picture]})
    ids = [image["ids"] for image in tokens["data"]]
    print(f"{PICTURE.name}: {len(ids[0])} tokens of {tokens['vocab_size']}, the first are {ids[0][:8]}")
    restored = post(f"{url}/v1/detokenize", {"ids": ids})
    (out / "scene.png").write_bytes(base64.b64decode(restored["data"][0]["b64_json"]))
    print(f"wrote {out / 'rabbit.png'} and {out / 'scene.png'}")


def main() -> None:
    """Start a server on a free port, ask it, and end it."""
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            found = re.search(r"http://[\d.:]+", line)
            if found is None:
                sys.exit(line + server.stderr.read())
            print(line, end="")
            demonstrate(found[0], Path("demo-server"))
        finally:
            server.terminate()
    print("start it yourself: semhitok serve")


if __name__ == "__main__":
    main()
