"""`dso serve`: an HTTP server in the shape of OpenAI's chat completions, with a strength a request.

Source of the shape: OpenAI's API reference, "Chat Completions".
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import logging
import os
import socket
from pathlib import Path

from dso.commands.arguments import add_loading, add_model, loading_of, positive, strength
from dso.inference import load

HELP = "serve a model over HTTP, the strength a field of every request"
DESCRIPTION = (
    "Serve POST /v1/chat/completions in OpenAI's shape, with a `strength` field; requests of "
    "different strengths are answered in one batch. What a request leaves out is as at OpenAI: "
    "temperature 1 (0 is greedy), one answer. Also GET /v1/models, /health and /metrics. "
    'Needs pip install "dso[serve]".'
)
TOKEN = "DSO_SERVE_TOKEN"
GRACE = 5
"""Seconds beyond a request's own that running ones are given when the server is told to stop."""

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    add_model(parser)
    parser.add_argument(
        "--strength",
        type=strength,
        metavar="W",
        help="where a request names none (default: 1 with an adapter, else 0)",
    )
    parser.add_argument("--name", help="of the model in requests (default: the model's folder)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)"
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="(default 8000); 0 takes a free one"
    )
    parser.add_argument(
        "--max-batch", type=positive, default=16, help="rows answered together (default 16)"
    )
    parser.add_argument(
        "--batch-wait",
        type=float,
        default=5.0,
        metavar="MS",
        help="milliseconds that a row waits for others to fill the batch (default 5)",
    )
    parser.add_argument(
        "--queue", type=positive, default=256, help="rows that may wait (default 256)"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds a request may take (default 60)"
    )
    parser.add_argument(
        "--max-tokens", type=positive, default=1024, help="longest answer (default 1024)"
    )
    parser.add_argument(
        "--max-strength", type=strength, default=2.0, help="largest strength (default 2)"
    )
    parser.add_argument(
        "--max-body", type=positive, default=2**21, help="bytes of a request (default 2 MiB)"
    )
    parser.add_argument(
        "--max-messages", type=positive, default=256, help="messages of a request (default 256)"
    )
    parser.add_argument(
        "--max-characters",
        type=positive,
        default=400_000,
        help="characters of all messages of a request (default 400000)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        help=f"file with the token that clients have to send (default: the variable {TOKEN}, if "
        "it is set)",
    )
    parser.add_argument(
        "--access-log", action="store_true", help="log a line for every request, without its body"
    )
    add_loading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command: serve until told to stop (Ctrl-C, or the signal TERM)."""
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f'dso serve needs {package}, which is not installed: pip install "dso[serve]"'
            )
    import uvicorn

    from dso.inference.serving import Serving, create_app

    settings = Serving(
        name=arguments.name or Path(arguments.model).name,
        max_batch=arguments.max_batch,
        batch_wait=arguments.batch_wait,
        queue=arguments.queue,
        timeout=arguments.timeout,
        max_tokens=arguments.max_tokens,
        max_strength=arguments.max_strength,
        max_body=arguments.max_body,
        max_messages=arguments.max_messages,
        max_characters=arguments.max_characters,
        token=token_of(arguments.token_file),
    )
    if arguments.adapter is None and arguments.strength:
        raise ValueError(
            f"strength {arguments.strength:g} needs an adapter; give --adapter, or --strength 0"
        )
    # Before the model is loaded, so that an address in use is said at once.
    listener = bound(arguments.host, arguments.port)
    if not is_loopback(arguments.host) and settings.token is None:
        log.warning(
            "%s can be reached from other machines and no token is asked for: whoever reaches it "
            "can use the model (--token-file, or the variable %s)",
            arguments.host,
            TOKEN,
        )
    pipeline = load(
        arguments.model,
        arguments.adapter,
        strength=1.0 if arguments.strength is None else arguments.strength,
        loading=loading_of(arguments),
    )
    app = create_app(pipeline, settings)
    log.info("%s", pipeline.describe())
    host, port = listener.getsockname()[:2]
    log.info(
        "serving %s at http://%s:%d, strength %g where a request names none",
        settings.name,
        f"[{host}]" if ":" in host else host,
        port,
        pipeline.strength,
    )
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=arguments.access_log,
        server_header=False,
        timeout_graceful_shutdown=int(settings.timeout) + GRACE,
    )
    uvicorn.Server(config).run(sockets=[listener])


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address, which does not listen yet.

    Raises:
        ValueError: there is no such address, or it is in use.
    """
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ValueError(
            f"cannot listen on {host}, port {port} ({error}); give another --host or --port"
        ) from error
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_of(file: Path | None) -> str | None:
    """The token: from the file, else from the environment; None where there is neither.

    Raises:
        ValueError: the file cannot be read.
    """
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token file {file} cannot be read ({error})") from error


def _port(text: str) -> int:
    """A port from the command line."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; wanted 0 to 65535")
    return int(text)
