"""A retriever of its own for a benchmark, and `retro` that talks to it."""
import atexit
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[3]
TOKENIZER = str(ROOT / "common/tokenizer/retro-16k.model")
START_S = 120


def resident_mb(pid, what="RssAnon"):
    """RssAnon is memory that the process keeps. RssFile is the page cache of what it has mapped, programs and the vectors of
    sealed segments: the kernel takes it back when it needs it, so it is told apart and promises nothing."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(next(line for line in status.split("\n") if line.startswith(what)).split()[1]) / 1024
    return None


class Retriever:
    """Of the store `folder`/store; its log is `folder`/log. start_seconds: from its start until it serves."""

    def __init__(self, build, folder, embedder, threads):
        with contextlib.closing(socket.socket()) as s:
            s.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % s.getsockname()[1]
        self.retro = f"{build}/bin/retro"
        self.environment = dict(os.environ, RETRO_RETRIEVER=self.address, OMP_WAIT_POLICY="passive")
        start = time.monotonic()
        with open(f"{folder}/log", "wb") as log:
            self.process = subprocess.Popen(
                [f"{build}/bin/retro-retriever", "--data", f"{folder}/store", "--tokenizer", TOKENIZER, "--embedder", embedder,
                 "--threads", str(threads), "--listen", self.address], stdout=log, stderr=log, env=self.environment)
        atexit.register(self.process.kill)
        while subprocess.run([self.retro, "health", "retriever"], env=self.environment, capture_output=True).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > start + START_S:
                sys.exit("the retriever did not start:\n" + pathlib.Path(folder, "log").read_text())
            time.sleep(0.1)
        self.start_seconds = time.monotonic() - start
        self.resident_at_start = resident_mb(self.process.pid)

    def start(self, *arguments):
        return subprocess.Popen([self.retro, *arguments], env=self.environment, stdout=subprocess.PIPE)

    def run(self, *arguments):
        """The last line of JSON."""
        process = self.start(*arguments, "--json")
        out = process.communicate()[0]
        if process.returncode != 0:
            sys.exit(f"retro {arguments} ended with {process.returncode}")
        return json.loads(out.splitlines()[-1])

    def stop(self):
        self.process.terminate()
        self.process.wait()
