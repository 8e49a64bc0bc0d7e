"""What the end-to-end tests share: services as processes in a folder of their own, on free ports, ended whatever happens.

RETRO_BUILD names the build folder (default build/release). RETRO_E2E_KEEP=1 keeps the folders, with every service's log. RETRO_WAIT_S is
for a machine that has other things to do: how long to wait for anything (60).
"""

import atexit
import contextlib
import ctypes
import functools
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("RETRO_BUILD", os.path.join(ROOT, "build", "release"))
TOKENIZER = os.path.join(ROOT, "common", "tokenizer", "retro-16k.model")
NO_END_OF_TEXT = ("--logit-bias", "3=-100")  # of that tokenizer: a model that knows nothing ends one of 16,384 texts at any token
PATIENT = ("--lookup-timeout", "60")  # where a look-up must be answered, whatever else the machine has to do
WAIT_S = float(os.environ.get("RETRO_WAIT_S", "60"))  # for anything that happens in a second on a quiet machine
TIME_FACTOR = int(os.environ.get("RETRO_TIME_FACTOR", "1"))  # how much slower everything is
IS_SANITIZED = TIME_FACTOR > 1  # memory is then not the service's own alone
OUTPUT_SHOWN = 2000  # characters, when a test fails
PORTS_FIRST, PORTS_OF_A_PROCESS, PORTS_PROCESSES = 10_000, 50, 440
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
running = set()
ports_tried = itertools.count()
port_holders = []


def program(name):
    return os.path.join(BUILD, "bin", name)


def die_with_parent():
    """In the child: no test that is killed leaves a service behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@atexit.register
def kill_all():
    for process in list(running):
        process.kill()
    for holder in port_holders:
        holder.close()


@functools.cache
def own_ports():
    """As tests/free_port.h: the first port of those that are this process's, which holds a name that only one can hold."""
    for i in range(PORTS_PROCESSES):
        number = (os.getpid() + i) % PORTS_PROCESSES
        holder = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            holder.bind(f"\0retro-ports-{number}")
            port_holders.append(holder)
            return PORTS_FIRST + number * PORTS_OF_A_PROCESS
        holder.close()
    raise AssertionError("other processes have all ports for tests")


def free_port():
    """Of ports that are this process's own to try, so that nobody takes it before it is used."""
    for _ in range(PORTS_OF_A_PROCESS):
        port = own_ports() + next(ports_tried) % PORTS_OF_A_PROCESS
        with contextlib.closing(socket.socket()) as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports of this process are taken")


def wait_for(what, condition, seconds=WAIT_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


class Service:
    """One run of a service; its log is JSON, one event a line."""

    def __init__(self, name, arguments, folder, port):
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.log_path = os.path.join(folder, f"{name}-{port}-{time.monotonic_ns()}.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [program(name), "--listen", self.address, "--log-format", "json", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, preexec_fn=die_with_parent)
        running.add(self.process)

    def log(self):
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()

    def event(self, name):
        """The first log event of that name, or None."""
        for line in self.log().split("\n"):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") == name:
                    return event
        return None

    def await_event(self, name):
        def look():
            event = self.event(name)
            if event is None and self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.log()}")
            return event
        return wait_for(f"event '{name}' in {self.log_path}", look)

    def stop(self, with_signal=signal.SIGTERM):
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        code = self.process.wait(WAIT_S)
        running.discard(self.process)
        return code


class Run:
    """What a program that ended left."""

    def __init__(self, process, out, err):
        self.code = process.returncode
        self.out = out.decode("utf-8", "surrogateescape")
        self.err = err.decode("utf-8", "surrogateescape")
        self.error_lines = [line for line in self.err.split("\n") if line]

    def json(self):
        return [json.loads(line) for line in self.out.split("\n") if line]

    def __str__(self):
        return f"exit code {self.code}\n{self.out[-OUTPUT_SHOWN:]}{self.err[-OUTPUT_SHOWN:]}"


class EndToEndTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="retro-e2e-")
        if os.environ.get("RETRO_E2E_KEEP"):
            print(f"{self.id()}: {self.folder}")
        else:
            self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.retriever_port = free_port()
        self.generator_port = free_port()

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, content):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(content.encode() if isinstance(content, str) else content)
        return path

    def write_jsonl(self, name, documents):
        return self.write(name, "".join(json.dumps(document) + "\n" for document in documents))

    def write_cluster_file(self, cluster, shards):
        """A new cluster with one replica a shard: r0, r1 and so on."""
        slots = [4096 * i // shards for i in range(shards + 1)]
        return self.write(f"{cluster}-{shards}.json", json.dumps({
            "version": 1, "cluster": cluster, "store_id": "0123456789abcdef" * 2,
            "shards": [{"slots": [slots[i], slots[i + 1] - 1], "epoch": 1, "primary": f"r{i}",
                        "replicas": [{"name": f"r{i}", "address": f"127.0.0.1:{free_port()}"}]} for i in range(shards)]}))

    # -------------------------------------------------------------------------------- programs that end
    def popen(self, arguments, **streams):
        environment = dict(os.environ, RETRO_RETRIEVER=f"127.0.0.1:{self.retriever_port}",
                           RETRO_GENERATOR=f"127.0.0.1:{self.generator_port}")
        process = subprocess.Popen(arguments, cwd=self.folder, env=environment, preexec_fn=die_with_parent,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams)
        running.add(process)
        self.addCleanup(self.discard, process)
        return process

    @staticmethod
    def discard(process):
        process.kill()
        process.communicate()
        running.discard(process)

    def run_program(self, *arguments, stdin=b""):
        process = self.popen(arguments, stdin=subprocess.PIPE)
        return Run(process, *process.communicate(stdin, WAIT_S))

    def retro(self, *arguments, stdin=b""):
        return self.run_program(program("retro"), *arguments, stdin=stdin)

    def retro_ok(self, *arguments, stdin=b""):
        run = self.retro(*arguments, stdin=stdin)
        self.assertEqual(run.code, 0, run)
        return run

    def rpc(self, address, method, message):
        """Status code, status message and the responses of a call with a message that is bytes already."""
        run = self.run_program(os.path.join(BUILD, "tests", "rpc_probe"), address, method, stdin=message)
        status, *responses = run.out.split("\n")
        code, _, text = status.partition(" ")
        return int(code), text, [bytes.fromhex(response) for response in responses if response]

    # -------------------------------------------------------------------------------- services
    def retriever_arguments(self, data="store", embedder="hash:64", tokenizer=TOKENIZER):
        return ["--data", self.path(data), "--embedder", embedder, "--tokenizer", tokenizer]

    def start(self, name, arguments, port):
        service = Service(name, arguments, self.folder, port)
        self.addCleanup(service.stop, signal.SIGKILL)
        service.await_event("serving")
        return service

    def start_retriever(self, *more, **options):
        return self.start("retro-retriever", [*self.retriever_arguments(**options), *more], self.retriever_port)

    def start_generator(self, model, *more):
        arguments = ["--model", model, "--retriever", f"127.0.0.1:{self.retriever_port}", *more]
        return self.start("retro-generator", arguments, self.generator_port)

    # -------------------------------------------------------------------------------- what must hold
    def assert_refuses_to_start(self, name, arguments, *words):
        """It ends by itself, not with 0, and its last line says what is wrong, with each of `words`."""
        run = self.run_program(program(name), "--log-format", "json", *arguments)
        self.assertGreater(run.code, 0, run)  # less: a signal
        self.assert_one_line(run, name, *words)

    def assert_one_line(self, run, name, *words):
        lines = [line for line in run.error_lines if not line.startswith("{")]  # without the log
        self.assertEqual(len(lines), 1, run)
        self.assertTrue(lines[0].startswith(f"{name}: "), run)
        for word in words:
            self.assertIn(word, lines[0])

    def assert_skips(self, run, path, *words):
        """Of an ingest: not 0, and exactly one line about `path`, with each of `words`."""
        self.assertEqual(run.code, 1, run)
        lines = [line for line in run.error_lines if path in line]
        self.assertEqual(len(lines), 1, run)
        for word in words:
            self.assertIn(word, lines[0])

    def exported(self):
        """Every stored document by id; fails if one is there twice."""
        documents = self.retro_ok("export").json()
        by_id = {document["id"]: document for document in documents}
        self.assertEqual(len(by_id), len(documents), "a document is stored twice")
        return by_id

    def stored_ids(self):
        return sorted(self.exported())


def protobuf_field(number, value):
    """One length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_safetensors(path, tensors):
    """`tensors`: name to (dtype, shape, bytes)."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def read_safetensors(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])]) for name, t in header.items()}


def main():
    unittest.main(verbosity=2)
