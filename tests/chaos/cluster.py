"""The cluster of the fault run: two shards of two replicas, two routers and two generators, all with TLS, each replica behind a line of its
own (lines.py) and on a small disk of its own, the routers together behind one line and so the generators; and what is done to them."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time

import grpc

import harness
from awake import awake_s

REPLICAS = {"0a": 0, "0b": 0, "1a": 1, "1b": 1}
ROUTERS = ("router0", "router1")
GENERATORS = ("generator0", "generator1")
SERVICES = {"routers": ROUTERS, "generators": GENERATORS}  # names that lead to several
NAMES = (*REPLICAS, *ROUTERS, *GENERATORS)
DISK = "160m"
DISK_KEPT_BYTES = 256 << 10  # what a full disk still has: some writes go well, some do not
CONNECTION_AGE_MS = 3000  # so that everybody soon meets a new certificate
EMBEDDER = "hash:64"
STORE_MEMORY_BYTES = 8 << 20  # a shard's, so little that its buffers are written to tables often
START_S = 5 * harness.TIME_FACTOR  # in which a process has started
CERTIFICATE_S = 2  # in which a new certificate is read
END_S = 60  # in which a process that is asked to has ended


class Certificates:
    """An authority, and for each process a good certificate and one that expired yesterday, of one key."""

    def __init__(self, folder):
        self.folder = folder
        self.openssl("req", "-x509", *self.new_key("ca.key"), "-days", "2", "-subj", "/CN=authority", "-out", "ca.pem")
        with open(os.path.join(folder, "names"), "w", encoding="ascii") as f:
            f.write("subjectAltName=IP:127.0.0.1")
        for name in NAMES:
            self.openssl("req", *self.new_key(f"{name}.key"), "-subj", f"/CN={name}", "-out", f"{name}.csr")
            for kind, days in (("good", "2"), ("expired", "-1")):
                self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days,
                             "-extfile", "names", "-out", f"{name}.{kind}")
            self.use(name, "good")

    @staticmethod
    def new_key(path):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def use(self, name, kind):
        link = self.path(f"{name}.pem")
        os.symlink(f"{name}.{kind}", link + ".new")
        os.replace(link + ".new", link)

    def flags(self, name, peers):
        return ["--tls-certificate", self.path(f"{name}.pem"), "--tls-key", self.path(f"{name}.key"), f"--{peers}-tls-ca", self.path("ca.pem")]


class Cluster:
    """`embedder` is that of retro-retriever's flag. Without `faults` it has the machine's disk, and connections of the usual age."""

    def __init__(self, folder, rng, wrong, embedder=EMBEDDER, faults=True):
        self.folder, self.rng, self.wrong, self.embedder = folder, rng, wrong, embedder
        self.age_flags = ["--connection-age-ms-max", str(CONNECTION_AGE_MS)] if faults else []
        self.ports = {name: harness.free_port() for name in NAMES}
        self.lines = {name: harness.free_port() for name in (*REPLICAS, *SERVICES)}
        self.services, self.ended, self.timers = {}, set(), []
        self.started, self.faults = {}, {name: [] for name in NAMES}  # when; from when to when
        self.lock = threading.RLock()
        os.mkdir(os.path.join(folder, "tls"))
        self.certificates = Certificates(os.path.join(folder, "tls"))
        for name in REPLICAS:
            os.mkdir(os.path.join(folder, name))
        self.small_disks = faults and all(self.mount(name) for name in REPLICAS)
        self.network = subprocess.Popen(
            [sys.executable, os.path.join(os.path.dirname(__file__), "lines.py"), *(f"{self.lines[n]}:{self.ports[n]}" for n in REPLICAS),
             *(f"{self.lines[name]}:{','.join(str(self.ports[n]) for n in of)}" for name, of in SERVICES.items())],
            stdin=subprocess.PIPE, text=True, preexec_fn=harness.die_with_parent)
        self.file = os.path.join(folder, "cluster.json")
        self.write_file()
        self.model = os.path.join(folder, "model")
        subprocess.run([harness.program("retro-model"), "init", "--preset", "retro-demo", "--tokenizer", harness.TOKENIZER, "--seed", "1",
                        "--out", self.model], check=True, stdout=subprocess.DEVNULL)
        self.start("router0")
        self.prints = self.services["router0"].await_event("fingerprints")
        for name in (*REPLICAS, "router1"):
            self.start(name)
        harness.wait_for("all in sync", self.all_in_sync)
        for name in GENERATORS:
            self.start(name)
        for name in GENERATORS:
            self.services[name].await_event("serving")

    def mount(self, name):
        """A disk of its own, small enough to be filled; False where that is not allowed."""
        return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", os.path.join(self.folder, name)], check=False,
                              capture_output=True).returncode == 0

    def write_file(self):
        shards = []
        for shard, slots in enumerate(([0, 2047], [2048, 4095])):
            names = [name for name, of in REPLICAS.items() if of == shard]
            shards.append({"slots": slots, "epoch": 1, "primary": names[0],
                           "replicas": [{"name": name, "address": f"127.0.0.1:{self.lines[name]}"} for name in names]})
        with open(self.file, "w", encoding="utf-8") as f:
            json.dump({"version": 1, "cluster": "chaos", "store_id": "%032x" % self.rng.getrandbits(128), "shards": shards}, f)

    def state(self):
        with open(self.file, encoding="utf-8") as f:
            return json.load(f)

    def all_in_sync(self):
        return all(len(shard.get("in_sync", [])) == len(shard["replicas"]) for shard in self.state()["shards"])

    # -------------------------------------------------------------------------------- processes
    def arguments(self, name):
        tls = self.certificates.flags(name, "shards" if name in ROUTERS else "retriever" if name in GENERATORS else "replicas")
        common = [*tls, "--log-level", "info", *self.age_flags]
        if name in ROUTERS:
            return "retro-retriever", [*common, "--role", "router", "--cluster-file", self.file, "--embedder", self.embedder,
                                       "--tokenizer", harness.TOKENIZER]
        if name in GENERATORS:
            return "retro-generator", [*common, "--model", self.model, "--retriever", f"127.0.0.1:{self.lines['routers']}", "--dtype",
                                       "fp32", "--threads", "1"]
        return "retro-shard", [*common, "--data", os.path.join(self.folder, name, "store"), "--cluster-file", self.file, "--shard",
                               str(REPLICAS[name]), "--replica", name, "--log-changes-max", "1000", "--late-ms", "1000", "--index-seal-chunks", "256",
                               "--store-memory-bytes", str(STORE_MEMORY_BYTES),
                               "--embedder-fingerprint", self.prints["embedder"], "--tokenizer-fingerprint", self.prints["tokenizer"],
                               "--dimension", self.prints["dimension"]]

    def address(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def credentials(self):
        with open(self.certificates.path("ca.pem"), "rb") as f:
            return grpc.ssl_channel_credentials(f.read())

    def channel(self, name):
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100)]
        return grpc.secure_channel(self.address(name), self.credentials(), options)

    def start(self, name):
        program, arguments = self.arguments(name)
        self.ended.discard(name)
        self.started[name] = awake_s()
        self.services[name] = harness.Service(program, arguments, self.folder, self.ports[name])

    def revive(self):
        """Starts what has ended. What ended by itself must have had a reason: a full disk or an expired certificate."""
        with self.lock:
            for name, service in self.services.items():
                code = service.process.poll()
                if code is None:
                    continue
                if name not in self.ended and (code < 0 or not self.excused(name)):
                    self.wrong(f"{name} ended by itself with {code}: {service.log()[-600:]}")
                harness.running.discard(service.process)
                self.start(name)

    def excused(self, name):
        """Whether it was to start while it could not."""
        start = self.started[name]
        return any(begin < start + START_S and start < end + CERTIFICATE_S for begin, end in self.faults[name])

    def end(self, name, with_signal):
        process = self.services[name].process
        if process.poll() is not None:
            return f"{name} is down already"
        self.ended.add(name)
        process.send_signal(with_signal)
        try:
            code = process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.wrong(f"{name} did not end within {END_S} s of {with_signal.name}")
            process.kill()
            code = process.wait(END_S)
        if with_signal == signal.SIGTERM and code != 0 and not self.excused_end(name, code):
            self.wrong(f"{name} ended with {code} after {with_signal.name}: {self.services[name].log()[-600:]}")
        return f"{with_signal.name} to {name}"

    def excused_end(self, name, code):
        """Whether it was not serving yet, or was starting or stopping while it could not."""
        now = awake_s()
        return (code == -signal.SIGTERM and now < self.started[name] + START_S) or (
            code > 0 and (self.excused(name) or any(begin < now < end + CERTIFICATE_S for begin, end in self.faults[name])))

    # -------------------------------------------------------------------------------- faults
    def fault(self):
        """One, and what it was."""
        kinds = [self.kill, self.kill, self.terminate, self.stop_a_while, self.promote, self.expire, self.delay, self.hold]
        if self.small_disks:
            kinds += [self.fill_disk]
        with self.lock:
            return self.rng.choice(kinds)()

    def for_a_while(self, name, seconds, undo):
        now = awake_s()
        self.faults[name].append((now, now + seconds))

        def end():
            with self.lock:
                undo()
        timer = threading.Timer(seconds, end)
        self.timers.append(timer)
        timer.start()

    def kill(self):
        return self.end(self.rng.choice(NAMES), signal.SIGKILL)

    def terminate(self):
        return self.end(self.rng.choice(NAMES), signal.SIGTERM)

    def stop_a_while(self):
        name, seconds = self.rng.choice(NAMES), self.rng.uniform(0.2, 5)
        process = self.services[name].process
        if process.poll() is not None:
            return f"{name} is down already"
        process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(seconds, process.send_signal, [signal.SIGCONT])
        self.timers.append(timer)
        timer.start()
        return f"stopped {name} for {seconds:.1f} s"

    def promote(self):
        number = self.rng.randrange(2)
        shard = self.state()["shards"][number]
        others = [name for name in shard.get("in_sync", []) if name != shard["primary"]]
        if not others:
            return f"nobody of shard {number} to promote"
        run = subprocess.run([harness.program("retro"), "admin", "promote", "--retriever", self.address(self.rng.choice(ROUTERS)), "--tls-ca",
                              self.certificates.path("ca.pem"), "--shard", str(number), "--replica", others[0], "--timeout", "5"],
                             capture_output=True, text=True, check=False)
        return f"promote {others[0]}: {run.returncode} {run.stderr.strip()}"

    def expire(self):
        name, seconds = self.rng.choice(NAMES), self.rng.uniform(2, 8)
        self.certificates.use(name, "expired")
        self.for_a_while(name, seconds, lambda: self.certificates.use(name, "good"))
        return f"the certificate of {name} is expired for {seconds:.1f} s"

    def order(self, name, delay, held):
        self.network.stdin.write(f"{self.lines[name]} {delay} {held}\n")
        self.network.stdin.flush()

    def delay(self):
        name, seconds, late = self.rng.choice(list(REPLICAS)), self.rng.uniform(1, 6), self.rng.uniform(0.01, 0.6)
        self.order(name, late, 0)
        self.for_a_while(name, seconds, lambda: self.order(name, 0, 0))
        return f"all that goes to or comes from {name} is {late * 1000:.0f} ms late for {seconds:.1f} s"

    def hold(self):
        name, seconds = self.rng.choice(list(REPLICAS)), self.rng.uniform(1, 6)
        self.order(name, 0, 1)
        self.for_a_while(name, seconds, lambda: self.order(name, 0, 0))
        return f"{name} is cut off for {seconds:.1f} s"

    def fill_disk(self):
        name, seconds = self.rng.choice(list(REPLICAS)), self.rng.uniform(1, 5)
        ballast = os.path.join(self.folder, name, "ballast")
        space = os.statvfs(os.path.dirname(ballast))
        with contextlib.suppress(OSError), open(ballast, "ab") as f:
            os.posix_fallocate(f.fileno(), 0, max(1, os.fstat(f.fileno()).st_size + space.f_bavail * space.f_frsize - DISK_KEPT_BYTES))
            self.fill_up(f)
        self.for_a_while(name, seconds, lambda: self.remove(ballast))
        return f"the disk of {name} is full for {seconds:.1f} s"

    def fill_up(self, file):
        """To the last byte, half of the times."""
        if self.rng.random() < 0.5:
            return
        file.seek(0, os.SEEK_END)
        try:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    @staticmethod
    def remove(path):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)

    # -------------------------------------------------------------------------------- the end
    def heal(self):
        """Every fault is undone, every process runs."""
        for timer in self.timers:
            timer.join()
        self.revive()

    def verify(self):
        """What each replica says that it holds."""
        says = {}
        for name in REPLICAS:
            run = subprocess.run([harness.program("retro"), "admin", "verify", "--retriever", self.address("router0"), "--tls-ca",
                                  self.certificates.path("ca.pem"), "--shard", str(REPLICAS[name]), "--replica", name],
                                 capture_output=True, text=True, check=False)
            says[name] = run.stdout.split()[0] if run.returncode == 0 else run.stderr.strip()
        return says

    def stop(self):
        for service in self.services.values():
            service.process.send_signal(signal.SIGCONT)
            service.stop(signal.SIGKILL)
        self.network.kill()
        self.network.wait()
        for name in REPLICAS:
            subprocess.run(["umount", "-l", os.path.join(self.folder, name)], check=False, capture_output=True)
