"""A minimal stdio server with one bad habit, named by its first argument. Standard library only, so that it starts at once."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

HABIT = sys.argv[1] if len(sys.argv) > 1 else ""
ARGUMENTS = sys.argv[2:]


def say(message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.02)


def answer(request: dict[str, Any]) -> None:
    """`initialize`, `ping`, and tools: `echo` gives its arguments, `big` a text of that size; the others tell of its process."""
    method, arguments = request["method"], request.get("params", {}).get("arguments", {})
    name = request.get("params", {}).get("name")
    result: Any = {}
    if method == "initialize":
        info = {"name": "odd", "version": "1"}
        result = {"protocolVersion": request["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "server/discover":
        say({"id": request["id"], "error": {"code": -32601, "message": "?"}})
        return
    elif method == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "pid")]}
    elif method == "tools/call":
        text = {
            "echo": lambda: json.dumps(arguments),
            "big": lambda: "x" * arguments["size_bytes"],
            "environment": lambda: json.dumps(dict(os.environ)),
            "where": lambda: os.getcwd(),
            "files": lambda: json.dumps([each for each in range(1_000) if os.path.exists(f"/proc/self/fd/{each}")]),
            "pid": lambda: str(os.getpid()),
            "wait": lambda: wait_for(arguments["path"]) or str(os.getpid()),
            "exit": lambda: os._exit(arguments.get("code", 3)),
        }[name]()
        result = {"content": [{"type": "text", "text": text}]}
    say({"id": request["id"], "result": result})


if HABIT == "dies":
    sys.stderr.write("cannot find my configuration\n")
    sys.exit(4)
if HABIT == "raises":  # after it has answered so many requests, with a secret of its own in what it says
    answers_left = int(ARGUMENTS[0])
if HABIT == "deaf":
    time.sleep(600)
if HABIT == "stubborn":  # has a child of its own, and neither leaves when asked
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    helper = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert helper.stdout is not None
    helper.stdout.readline()
if HABIT == "chatty" and os.fork() == 0:  # fills its standard error faster than anybody reads it, for as long as it lives
    while True:
        os.write(2, b"x" * 997 + os.environ.get("TOKEN", "-").encode() + b"\n")
if (
    HABIT in ("daemon", "bare daemon") and os.fork() == 0
):  # starts one in a session of its own, which writes its number to the file
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    for descriptor in range(3):
        os.close(descriptor)
    with open(f"{ARGUMENTS[0]}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(file.name, ARGUMENTS[0])
    if HABIT == "bare daemon":  # with nothing in its environment
        os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
    time.sleep(600)
if HABIT == "noisy":  # libraries that print; bytes that are nothing
    os.write(
        1, b"Loading...\n\n\xff\xfe\x00\n{\n{}\n[1,2\n" + b"noise\n" * 10_000 + os.urandom(50_000).replace(b"{", b"") + b"\n"
    )

for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        if HABIT == "raises":
            if answers_left == 0:
                raise ValueError(f"no answer from {os.getpid()} with {os.environ.get('TOKEN')}: " + "x" * 1_000)
            answers_left -= 1
        answer(message)
if HABIT == "stubborn":
    time.sleep(600)
