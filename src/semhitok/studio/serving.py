"""Serve the page on this machine, without a request to any other.

uvicorn runs the page, not ``Blocks.launch``, which first asks its own page whether it can be reached and gives up on a busy
machine.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import gradio as gr
import uvicorn
from fastapi import FastAPI

from semhitok.studio.app import build, theme
from semhitok.studio.workspace import Workspace

UPLOAD_LIMIT = "50mb"
FAREWELL = 2  # seconds that requests have to end when the server does; pages keep one open all the time


def launch(workspace: Workspace, *, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the page until Ctrl-C.

    Args:
        workspace: what it shows.
        host: address to listen on; anyone who reaches it can name folders of this machine in the page.
        port: 0 takes any free one.

    Raises:
        ValueError: there is no such address, or the port is taken.
    """
    with _listening(host, port) as listener:
        server = _server(workspace, listener)
        print(f"The studio is at {_url(listener)} until Ctrl-C.", flush=True)
        server.run(sockets=[listener])


@contextmanager
def serving(workspace: Workspace, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address of the page, which another thread serves for the time of a ``with`` block; arguments are those of ``launch``."""
    with _listening(host, port) as listener:
        server = _server(workspace, listener)
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="studio", daemon=True)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield _url(listener)
        finally:
            server.should_exit = True
            thread.join()


def _server(workspace: Workspace, listener: socket.socket) -> uvicorn.Server:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    host, port = listener.getsockname()[:2]
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build(workspace),
        "/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=UPLOAD_LIMIT,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=theme(),
        css_paths=[Path(__file__).with_name("studio.css")],
    )
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=FAREWELL))


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]  # without the address once more
        raise ValueError(
            f"the page cannot be served at {host}:{port}: {reason}; choose another --port or --host"
        ) from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
