"""Both services together on the GPU machine: documents in, texts out, by many at once."""

import concurrent.futures
import contextlib
import json
import statistics
import time

NEW_TOKENS = 256
STREAMS = (1, 8, 32)
PROMPT = "The retriever answers which stored passages are nearest to"


class Pair:
    """A retriever with the project's own documents and a generator of the demo model."""

    def __init__(self, harness, bundle):
        self.generation = [harness.program("retro"), "generate", "--json", "--max-tokens", str(NEW_TOKENS), *harness.NO_END_OF_TEXT, PROMPT]
        self.model, self.documents = bundle / "model", bundle / "documents"
        self.host = harness.EndToEndTest()  # for its services
        self.host.setUp()
        tokenizer = str(self.model / "tokenizer.model")
        self.host.start("retro-retriever", self.host.retriever_arguments(tokenizer=tokenizer), self.host.retriever_port)
        self.host.retro_ok("ingest", "--quiet", str(self.documents))

    @contextlib.contextmanager
    def generator(self, device, dtype):
        service = self.host.start_generator(str(self.model), "--device", device, "--dtype", dtype, "--sessions-max", str(max(STREAMS)))
        try:
            yield service
        finally:
            service.stop()

    def generate(self, *more):
        """The text, how many neighbours it was made with, and when each token came."""
        process = self.host.popen([*self.generation, *more])
        tokens, neighbours, times = [], 0, []
        for line in process.stdout:
            event = json.loads(line)
            if "token" in event:
                tokens.append(event["token"]["text"])
                times.append(time.monotonic())
            neighbours += len(event.get("retrieval", {}).get("neighbours", {}).get("neighbours", []))
        error = process.stderr.read().decode()
        if process.wait() != 0 or len(tokens) != NEW_TOKENS:
            raise RuntimeError(f"retro generate gave {len(tokens)} tokens: {error}")
        return "".join(tokens), neighbours, times


def stream(pair, device, streams, figure):
    def all_at_once():
        with concurrent.futures.ThreadPoolExecutor(streams) as pool:
            return list(pool.map(lambda seed: pair.generate("--seed", str(seed)), range(1, streams + 1)))

    all_at_once()  # in which the graphs for so many are captured
    runs = all_at_once()
    seconds = max(times[-1] for _, _, times in runs) - min(times[0] for _, _, times in runs)
    gaps = sorted(b - a for _, _, times in runs for a, b in zip(times, times[1:]))
    figure(what="serve", name="streams", device=device, streams=streams, tokens_per_second=round(streams * NEW_TOKENS / seconds),
           gap_ms_median=round(1e3 * statistics.median(gaps), 2), gap_ms_p99=round(1e3 * gaps[int(0.99 * len(gaps))], 2),
           neighbours=sum(n for _, n, _ in runs), **{"pass": all(n > 0 for _, n, _ in runs)})


def measure(pair, device, figure):
    greedy = ["--temperature", "0"]
    with pair.generator("cpu", "fp32"):
        expected, *_ = pair.generate(*greedy)
    with pair.generator(device, "fp32"):
        text, neighbours, _ = pair.generate(*greedy)
    figure(what="serve", name="greedy text in fp32 as on the CPU", neighbours=neighbours, **{"pass": text == expected and neighbours > 0})
    with pair.generator(device, "bf16" if device != "cpu" else "fp16") as service:
        for streams in STREAMS:
            stream(pair, device, streams, figure)
        for line in service.log().splitlines():
            if '"warning"' in line or '"error"' in line:
                figure(what="serve", name="log", line=line, **{"pass": "no_cuda_graphs" not in line})


def serve(harness, bundle, device, figure):
    pair = Pair(harness, bundle)
    try:
        measure(pair, device, figure)
    finally:
        pair.host.doCleanups()
