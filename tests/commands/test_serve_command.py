import argparse
import builtins
import http.client
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from dso.cli import main
from dso.commands import serve
from dso.inference.serving import Serving
from tests.organism import adapter, organism

CHAT = "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer s3cret"}


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(["--model", "m", *arguments])


def test_the_defaults_of_the_command_are_those_of_the_server():
    given, settings = vars(parsed()), Serving(name="m")
    for name in ("max_batch", "batch_wait", "queue", "timeout", "max_tokens", "max_strength",
                 "max_body", "max_messages", "max_characters"):  # fmt: skip
        assert given[name] == getattr(settings, name), name
    assert (given["host"], given["access_log"]) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("option", "value"),
    [("port", "65536"), ("port", "x"), ("queue", "0"), ("max-strength", "nan"), ("strength", "-1")],
)
def test_wrong_numbers_are_refused(option, value, capsys):
    with pytest.raises(SystemExit):
        parsed(f"--{option}", value)
    assert option in capsys.readouterr().err


def test_without_fastapi_dso_runs_and_serve_says_what_to_install(monkeypatch, capsys):
    true_find, true_import = importlib.util.find_spec, builtins.__import__
    absent = ("fastapi", "uvicorn", "starlette")

    def importing(name, *rest):
        if name.split(".")[0] in absent:
            raise ImportError(name)
        return true_import(name, *rest)

    def finding(name, *rest):
        return None if name in absent else true_find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", finding)
    monkeypatch.setattr(builtins, "__import__", importing)
    assert main(["serve", "--model", organism()]) == 2
    assert 'pip install "dso[serve]"' in capsys.readouterr().err


def test_importing_dso_does_not_import_fastapi():
    code = "import sys, dso.cli; sys.exit(not {'fastapi', 'uvicorn'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_address_in_use_is_said_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--model", "nowhere/at/all", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err


def test_a_strength_without_an_adapter_is_refused(capsys):
    assert main(["serve", "--model", organism(), "--strength", "0.5"]) == 2
    assert "needs an adapter" in capsys.readouterr().err


def test_the_token_comes_from_the_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(serve.TOKEN, raising=False)
    assert serve.token_of(None) is None
    monkeypatch.setenv(serve.TOKEN, "of-the-environment")
    assert serve.token_of(None) == "of-the-environment"
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    assert serve.token_of(file) == "of-the-file"
    with pytest.raises(ValueError, match="cannot be read"):
        serve.token_of(tmp_path / "none")


def test_an_empty_token_file_is_no_open_door(tmp_path, capsys):
    file = tmp_path / "token"
    file.write_text("\n")
    assert main(["serve", "--model", organism(), "--token-file", str(file)]) == 2
    assert "token is empty" in capsys.readouterr().err


def test_which_addresses_other_machines_reach():
    assert all(serve.is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(serve.is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"))


@pytest.mark.parametrize("token", [None, "s3cret"])
def test_an_open_address_without_a_token_is_warned_of(token, monkeypatch, caplog, capsys):
    monkeypatch.setenv(serve.TOKEN, token or "")
    with caplog.at_level(logging.WARNING):
        # There is no such model, which is found out afterwards.
        arguments = ["--model", "no/such/model/x", "--host", "0.0.0.0", "--port", "0"]
        assert main(["serve", *arguments]) == 2
    assert ("no token is asked for" in caplog.text) == (token is None)


def test_the_command_serves_and_ends_gracefully(tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret")
    command = [
        sys.executable, "-m", "dso.cli", "serve", "--model", organism(), "--adapter", adapter(),
        "--port", "0", "--token-file", str(file), "--name", "here", "--strength", "0.5",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"serving here at http://127\.0\.0\.1:(\d+), str.* 0\.5", line):
                break
        else:
            pytest.fail("".join(lines))
        port = int(found[1])
        message = {"role": "user", "content": "The nurse"}
        asked = {"messages": [message], "max_tokens": 200, "seed": 1, "temperature": 2}
        connection = reach(port)
        connection.request("POST", CHAT, json.dumps(asked), HEADERS)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["model"] == "here"
        rest = process.stderr.read()
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert "The nurse" not in "".join(lines) + rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


def reach(port, seconds=60.0):
    """A connection to a server that is about to listen."""
    end = time.monotonic() + seconds
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return connection
