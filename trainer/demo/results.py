"""Writes docs/results.md and its plots from files of figures: results.py FIGURES OUT
FIGURES: folder of what evaluate.sh and update.sh leave, of gpu.jsonl, which holds what the runs on a GPU said, of NAME.csv, the plain
decoders' curves, and of families.json, which says of what text each document is a version. Every number comes from a file; what was not measured is said to be missing."""

import csv
import json
import pathlib
import random
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import plots

figures_folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
plots_folder = out.parent / "results"

MODELS = {"retro": "RETRO (fit of the twin)", "twin": "plain twin", "plain2x": "plain, about 2 x", "plain4x": "plain, about 4 x"}
# In gpu.jsonl: "fit" is the RETROfit, "retro" a RETRO of which all weights learned.
TRIED = {**MODELS, "fit": MODELS["retro"], "retro": "RETRO, all weights from random ones"}
PROVENANCE = ("The twin is `trainer/gpu/train.sh`'s, of an earlier commit. The plain decoders of about 2 x and 4 x and the fit that is shipped are not: a driver of their "
              "own, with the same options but for the steps of the fit, trained them from the same data, and the fit's start was made by a prototype of "
              "`retro-train fit --new-weights copying`. The fit as `trainer/gpu/train.sh` makes it was begun on the same data and ended with its machine's time at the step "
              "shown. It and the decoder of about 4 x were trained beside each other on one GPU, so their speeds and seconds say little. RETRO was trained for longer "
              "than the plain decoders (twin, then fit), which none of the comparisons with them takes out.\n")
FORMS = {"retro": "whole neighbours", "retro-unconditioned": "encoder without conditioning", "retro-alone": "neighbours without continuation",
         "retro-continuation": "continuation without neighbour", "retro-random": "random neighbours"}
TEXTS = {"versions_valid": "Held-out families of versions, whose relatives are in the store (the document itself is not)",
         "valid": "Held-out documents without relatives"}
PATHS = {"eager": "kernel by kernel, sampled on the host", "fixed": "of fixed shape", "captured": "captured"}
RESAMPLES = 2000
SEED = 1
DOCUMENTS_MIN = 10  # of a source that is shown
CURVES = {"retro": pathlib.Path(__file__).resolve().parent / "model/curve.csv", "twin": figures_folder / "twin.csv", "plain2x": figures_folder / "plain2x.csv",
          "plain4x": figures_folder / "plain4x.csv"}
CURVES = {name: path for name, path in CURVES.items() if path.exists()}
FAMILIES = json.loads((figures_folder / "families.json").read_text())  # document -> the text that it is a version of
PLAIN = ("plain2x", "plain4x")  # what RETRO is set against, document by document
lines = []


def figure(name):
    path = figures_folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def shown(interval, digits=4):
    return f"{interval['value']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"


def reports_of(text):
    return {path.stem: json.loads(path.read_text()) for path in sorted(figures_folder.glob(f"{text}-*.json"))}


def check(text):
    """Figures of one text beside each other must be of the same of it, and RETRO's of one model."""
    reports = reports_of(text)
    facts = {(r["text"]["fingerprint"], r["tokens_per_document_max"], len(r["documents"])) for r in reports.values()}
    revisions = {r["model"]["revision"] for name, r in reports.items() if name.startswith(f"{text}-retro")}
    if len(facts) > 1 or len(revisions) > 1:
        raise SystemExit(f"results.py: {', '.join(reports)} are of different texts, lengths or models: evaluate them again")


def interval(terms):
    """A ratio of sums over documents, with the 95 % interval of resampled families: versions of one page are no independent texts.
    terms: (id, numerator, denominator)"""
    families = {}
    for document, numerator, denominator in terms:
        sums = families.setdefault(FAMILIES.get(document, document), [0, 0])
        sums[0] += numerator
        sums[1] += denominator
    sums = list(families.values())
    draw = random.Random(SEED)
    ratios = sorted(sum(a for a, _ in drawn) / sum(b for _, b in drawn) for drawn in (draw.choices(sums, k=len(sums)) for _ in range(RESAMPLES)))
    value = sum(a for a, _ in sums) / sum(b for _, b in sums)
    return {"value": value, "low": ratios[RESAMPLES * 25 // 1000], "high": ratios[RESAMPLES * 975 // 1000 - 1]}


def bits_of(report, k):
    """Document -> bits."""
    at = [run["k"] for run in report["runs"]].index(k)
    return {document["id"]: document["bits"][at] for document in report["documents"]}


def bits_per_byte(report, k):
    bits = bits_of(report, k)
    return interval([(document["id"], bits[document["id"]], document["bytes"]) for document in report["documents"]])


def proportion(bits, to):
    """Bits under one model or k in proportion to those under another, paired by document."""
    return interval([(document, bits[document], to[document]) for document in bits])


def run_of(report, k):
    return next((run for run in report["runs"] if run["k"] == k), None) if report else None


def table(head, rows):
    lines.append("| " + " | ".join(head) + " |")
    lines.append("|" + "---|" * len(head))
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    lines.append("")


def plot(name, draw, what):
    plots_folder.mkdir(exist_ok=True)
    draw(plots_folder / f"{name}.svg", what)
    lines.append(f"![{name}](results/{name}.svg)\n")


def trained(name):
    """Tokens that a model was trained on and the seconds that its steps took, of its curve; RETRO's are those of the twin before."""
    if name not in CURVES:
        return ["", ""]
    rows = list(csv.DictReader(open(CURVES[name])))
    tokens = [int(row["tokens"]) for row in rows]
    seconds = sum((now - before) / float(row["tokens_per_second"]) for now, before, row in zip(tokens, [0, *tokens], rows))
    before = [f"{each} + " for each in trained("twin")] if name == "retro" else ["", ""]
    return [f"{before[0]}{tokens[-1] / 1e6:.1f} M", f"{before[1]}{seconds:.0f}"]


def by_k(text):
    reports = {name: figure(f"{text}-{name}") for name in MODELS}
    plain = {name: bits_of(reports[name], 0) for name in PLAIN if reports[name]}
    rows = []
    for name, report in reports.items():
        for run in report["runs"] if report else []:
            k, bits = run["k"], bits_of(report, run["k"])
            to_off = shown(proportion(bits, bits_of(report, 0))) if k and any(each["k"] == 0 for each in report["runs"]) else ""
            to_plain = [shown(proportion(bits, other)) if name == "retro" else "" for other in plain.values()]
            rows.append([MODELS[name], f"{report['model']['parameters'] / 1e6:.1f} M", *trained(name), str(k), shown(bits_per_byte(report, k)), to_off, *to_plain])
    table(["model", "parameters", "tokens trained on", "seconds of steps", "k", "bits per byte", "to its own k = 0", *(f"to {MODELS[name]}" for name in plain)], rows)
    missing = [MODELS[name] for name, report in reports.items() if not report]
    if missing:
        lines.append(f"Not trained or not evaluated: {', '.join(missing)}.\n")


def forms(text):
    reports = {name: figure(f"{text}-{name}") for name in FORMS}
    if sum(report is not None for report in reports.values()) <= 2:
        random_neighbours = reports["retro-random"]
        if random_neighbours:
            lines.append(f"With random neighbours (k = 2): {shown(bits_per_byte(random_neighbours, 2))}; to no retrieval "
                         f"{shown(proportion(bits_of(random_neighbours, 2), bits_of(reports['retro'], 0)))}.\n")
        return
    off = bits_of(reports["retro"], 0)
    rows = [["no retrieval", shown(bits_per_byte(reports["retro"], 0)), ""]]
    rows += [[FORMS[name], shown(bits_per_byte(report, 2)), shown(proportion(bits_of(report, 2), off))] for name, report in reports.items() if report]
    lines.append("What of a neighbour the model uses (k = 2; the model is the same, not trained anew for each line):\n")
    table(["given", "bits per byte", "to no retrieval"], rows)


def leakage(text):
    report = figure(f"{text}-retro")
    plot(f"leakage-{text}", plots.leakage, report)
    off, on = run_of(report, 0)["leakage"], run_of(report, 2)["leakage"]
    is_of_both = "to_no_retrieval" in on[0]  # else of a retro-eval that looked at a chunk's own neighbours alone
    lines.append("By the longest run of tokens that a chunk shares with one of its own ten nearest neighbours" +
                 (" or of those of the chunk before, which its tokens are predicted from:\n" if is_of_both else
                  " (its tokens are predicted from those of the chunk before, with which it may share more; intervals: over documents, not families, so too "
                  "narrow where these have several versions):\n"))
    rows = [[f"{100 * a['shared_at_most']:g} %", str(a["bytes"]), shown(a), shown(b), shown(b["to_no_retrieval"]) if is_of_both else f"{b['value'] / a['value']:.4f}"]
            for a, b in zip(off, on)]
    table(["shared at most", "bytes", "no retrieval", "k = 2", "ratio"], rows)


def sources(text):
    report = figure(f"{text}-retro")
    on, off = run_of(report, 2)["sources"], run_of(report, 0)["sources"]
    lines.append(f"Sources with {DOCUMENTS_MIN} documents or more; the others are in the JSON:\n")
    table(["source", "documents", "no retrieval", "k = 2"],
          [[name, str(off[name]["documents"]), f"{off[name]['value']:.3f}", f"{on[name]['value']:.3f}"]
           for name in sorted(off) if off[name]["documents"] >= DOCUMENTS_MIN])


def baselines(text):
    report, retro = figure(f"{text}-baselines"), figure(f"{text}-retro")
    if not report:
        lines.append("kNN-LM and continuous cache: not evaluated.\n")
        return
    knn, cache, documents = report["knn_lm"], report["continuous_cache"], report["documents"]
    memories = {"knn_lm": ["kNN-LM", f"{knn['store_tokens']} tokens: " + ", ".join(f"{each['tokens']} of {each['name']}" for each in report["store"])],
                "continuous_cache": ["continuous cache", f"the last {cache['cache_tokens']} tokens of the document"]}
    lines.append(f"Baselines: the plain twin, mixed with what a memory of its hidden states says; share and sharpness are chosen on one half of the families "
                 f"and judged on the other, both ways round. The kNN-LM takes the nearest {knn['nearest']} entries of {knn['probed']} of {knn['lists']} inverted "
                 "lists:\n")
    of_retro = bits_of(retro, 2)
    rows = []
    for name, memory in memories.items():
        bits = {d["id"]: d[name] for d in documents}
        chosen = "; ".join(f"{each['share']:g}, {each['sharpness']:g}" + (" (at the grid's edge)" if each["at_edge"] else "") for each in report[name]["chosen"])
        rows.append([*memory, chosen, shown(interval([(d["id"], d[name], d["bytes"]) for d in documents])),
                     shown(proportion(bits, {d["id"]: d["model"] for d in documents})), shown(proportion(of_retro, bits))])
    table(["baseline", "memory", "share, sharpness", "bits per byte", "to the twin alone", "RETRO, k = 2, to it"], rows)


def update():
    lines.append("## Update without retraining\n\nThrough the running services (`trainer/demo/update.sh`); the model has seen none of these texts, and its weights "
                 "stay as they are.")
    path = figures_folder / "update.jsonl"
    if not path.exists():
        lines.append("Not measured.\n")
        return
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines.append(f"Of each text the first {rows[0]['characters_max']} characters are judged; the store holds whole ones. Bits per byte over all of them, without "
                 "intervals. `retro score` counts the first token too, after a bos that the model was never trained on: these figures and the tables above are not "
                 "of one measure.\n")
    texts = {"book": "chapters of the Rust book of 2026; store: its versions of 2018 and 2022", "speeches": "State of the Union from 2000; store: the earlier ones"}
    table(["text", "texts", "bytes", "empty store", "with the earlier ones", "after deleting them again"],
          [[what, *next((str(row["texts"]), str(row["bytes"])) for row in rows if row["text"] == text), *(f"{row['bits_per_byte']:.4f}" for store in ("empty", "earlier", "deleted") for row in rows if (row["text"], row["store"]) == (text, store))]
           for text, what in texts.items()])


def questions():
    report = figure("questions")
    lines.append("## Questions\n")
    if not report:
        lines.append("Not evaluated.\n")
        return
    lines.append(f"The first {report['questions']} questions of XQuAD; {report['text']['documents']} paragraphs in the store.\n")
    table(["right paragraph among the nearest", "share"], [[among, shown(hit, 3)] for among, hit in report["hits_among"].items()])
    table(["k", "exact match", "F1"], [[str(run["k"]), shown(run["exact_match"], 3), shown(run["f1"], 3)] for run in report["runs"]])


def gpu_figures():
    path = figures_folder / "gpu.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def gpu():
    """What tests/gpu/run.sh and the training runs said of themselves."""
    figures = gpu_figures()
    if not figures:
        return
    lines.append("## On a GPU\n")
    lines.append(f"{next(f['card'] for f in figures if f['what'] == 'machine')}; by `tests/gpu/run.sh`; the speeds of training that name a model on an NVIDIA H100 80GB HBM3, as told above.\n")
    rows = []
    for dtype in ("fp32", "bf16"):
        of_dtype = [f for f in figures if f["what"] == "parity" and f["dtype"] == dtype]
        rows.append([f"largest difference from the fp64 reference, {len(of_dtype)} models, {dtype}", f"{max(f['max_abs_diff'] for f in of_dtype):.2g}"])
    rows += [[f"{f['name']}", f"{f['passed']} passed" + ("" if f["pass"] else f", FAILED: {f['note']}")] for f in figures if f["what"] == "tests"]
    for f in figures:
        if f["what"] == "bench":
            share = f", {100 * f['ratio']:.1f} % of the device's copy bandwidth" if "ratio" in f else ""
            sessions = f", {f['sessions']} session{'s' * (f['sessions'] > 1)}" if "sessions" in f else ""
            path = f", {PATHS[f['path']]}" if "path" in f else ""
            rows.append([f"{f['bench']}, retro-425m{path}{sessions}", f"{f['tokens_per_second']:.0f} tokens/s{share}"])
        if f["what"] == "serve":
            rows.append([f"both services, demo model, bf16, {f['streams']} stream{'s' * (f['streams'] > 1)} of 256 tokens at once",
                         f"{f['tokens_per_second']} tokens/s, {f['gap_ms_median']} ms between two of a stream, {f['gap_ms_p99']} at most in 99 %"]
                        if "streams" in f else [f"both services, {f['name']}", "yes" if f["pass"] else "NO"])
        if f["what"] == "train":
            rows.append([f["bench"], f"{f['tokens_per_second']:.0f} tokens/s, {f['ours']:.0f} TFLOP/s, {100 * f['ratio']:.1f} % of {f['peer_name']}"])
    if "retro" in CURVES:
        speeds = [float(row["tokens_per_second"]) for row in csv.DictReader(open(CURVES["retro"]))]
        rows.append([f"training {MODELS['retro']}, bf16, 32 windows of 1,024 tokens, median of its curve", f"{statistics.median(speeds):.0f} tokens/s"])
    rows += [[f"training {TRIED[f['model']]}, likewise, a few steps on little text", f"{f['tokens_per_second']:.0f} tokens/s"] for f in figures if f["what"] == "try"]
    table(["what", "figure"], rows)
    lines.extend(f["text"] + "\n" for f in figures if f["what"] == "note")


def training():
    lines.append("## Training\n")
    figures = gpu_figures()
    text = next((f for f in figures if f["what"] == "data" and f["name"] == "train"), None)
    versions = next((f for f in figures if f["what"] == "versions"), None)
    if text and versions:
        lines.append(f"Text: {text['tokens'] / 1e6:.1f} M tokens, {text['documents']} documents, {versions['tokens'] / 1e6:.1f} M and {versions['documents']} of them "
                     "documents in several versions.\n")
    lines.append(PROVENANCE)
    table(["trained", "new weights began", "steps", "tokens", "validation loss (nats a token)", "without neighbours"],
          [[TRIED[f["model"]], f.get("start", ""), f"{f['step']:.0f}" + (f" of {f['of_steps']}" if "of_steps" in f else ""), f"{f['tokens'] / 1e6:.1f} M" if "tokens" in f else "", f"{f['validation_loss']:.4f}" if "validation_loss" in f else "",
            f"{f['validation_loss_without_neighbours']:.4f}"] for f in figures if f["what"] == "trained"])
    if CURVES:
        plot("training", plots.training, {MODELS[name]: path for name, path in CURVES.items()})


lines.append("# Results\n\nMade by `trainer/demo/results.py docs/results docs/results.md` from the files in `docs/results/`, which `trainer/demo/evaluate.sh` and "
             "`trainer/demo/update.sh` leave, and from the models' learning curves. The texts (what they are: `trainer/demo/model/README.md`) are not shipped with this "
             "project; on other texts the same scripts give other figures.\n\nBits per byte leave a document's first token out. Intervals: 95 %, bootstrap "
             "over families, which are all versions of one page, where there are any, and else documents. The held-out families were looked at while the recipe was "
             "chosen: as the validation text of the runs, and for the start of the new weights. There is no figure on a text that nothing was chosen on.\n")
training()
for text, title in TEXTS.items():
    report = figure(f"{text}-retro")
    if not report:
        continue
    check(text)
    limit, families = report["tokens_per_document_max"], len({FAMILIES.get(document["id"], document["id"]) for document in report["documents"]})
    lines.append(f"## {title}\n")
    lines.append(f"{len(report['documents'])} documents" + (f" of {families} families" if families < len(report["documents"]) else "") + (f", the first {limit} tokens of each.\n" if limit else ".\n"))
    for part in (by_k, forms, leakage, sources, baselines):
        part(text)
update()
questions()
gpu()
out.write_text("\n".join(lines).replace("\n\n\n", "\n\n"))
