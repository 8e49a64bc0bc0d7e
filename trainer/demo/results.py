"""Writes docs/results.md and its plots from the files of figures that evaluate.sh leaves: results.py FIGURES OUT [CURVE...]
CURVE: NAME=curve.csv of a run. Every number comes from a file; what was not measured is said to be missing."""

import json
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import plots

figures_folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
curves = dict(argument.split("=", 1) for argument in sys.argv[3:])
plots_folder = out.parent / "results"

MODELS = {"retro": "RETRO (fit of the twin)", "twin": "plain twin", "plain2x": "plain, about 2 x", "plain4x": "plain, about 4 x"}
FORMS = {"retro": "whole neighbours", "retro-unconditioned": "encoder without conditioning", "retro-alone": "neighbours without continuation",
         "retro-continuation": "continuation without neighbour", "retro-random": "random neighbours"}
TEXTS = {"versions_valid": "Held-out families of versions, whose relatives are in the store (the document itself is not)",
         "valid": "Held-out documents without relatives"}
RESAMPLES = 2000
SEED = 1
DOCUMENTS_MIN = 10  # of a source that is shown
lines = []


def figure(name):
    path = figures_folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def shown(interval, digits=4):
    return f"{interval['value']:.{digits}f} [{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"


def family(document):
    """What a document shares with its other versions: the source and the page's name. SOURCE/VERSION/.../NAME, NAME with or without a number."""
    source, *rest = document["id"].split("/")
    return (source, re.sub(r"^[0-9]+-?", "", rest[-1])) if len(rest) > 1 else document["id"]


def interval(report, numerator, denominator):
    """A ratio of sums over documents, with the 95 % interval of resampled families: versions of one page are no independent texts."""
    families = {}
    for document in report["documents"]:
        sums = families.setdefault(family(document), [0, 0])
        sums[0] += numerator(document)
        sums[1] += denominator(document)
    sums = list(families.values())
    draw = random.Random(SEED)
    ratios = sorted(sum(a for a, _ in drawn) / sum(b for _, b in drawn) for drawn in (draw.choices(sums, k=len(sums)) for _ in range(RESAMPLES)))
    value = sum(a for a, _ in sums) / sum(b for _, b in sums)
    return {"value": value, "low": ratios[RESAMPLES * 25 // 1000], "high": ratios[RESAMPLES * 975 // 1000 - 1]}


def bits_per_byte(report, k):
    at = [run["k"] for run in report["runs"]].index(k)
    return interval(report, lambda document: document["bits"][at], lambda document: document["bytes"])


def to_no_retrieval(report, k):
    at, off = ([run["k"] for run in report["runs"]].index(each) for each in (k, 0))
    return interval(report, lambda document: document["bits"][at], lambda document: document["bits"][off])


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


def by_k(text):
    reports = {name: figure(f"{text}-{name}") for name in MODELS}
    rows = []
    for name, report in reports.items():
        for run in report["runs"] if report else []:
            ratio = shown(to_no_retrieval(report, run["k"])) if run["k"] and "to_no_retrieval" in run else ""
            rows.append([MODELS[name], f"{report['model']['parameters'] / 1e6:.1f} M", str(run["k"]), shown(bits_per_byte(report, run["k"])), ratio])
    table(["model", "parameters", "k", "bits per byte", "to its own k = 0"], rows)
    missing = [MODELS[name] for name, report in reports.items() if not report]
    if missing:
        lines.append(f"Not trained or not evaluated: {', '.join(missing)}.\n")


def forms(text):
    reports = {name: figure(f"{text}-{name}") for name in FORMS}
    if sum(report is not None for report in reports.values()) <= 2:
        random_neighbours = reports["retro-random"]
        if random_neighbours:
            lines.append(f"With random neighbours (k = 2): {shown(bits_per_byte(random_neighbours, 2))}.\n")
        return
    rows = [["no retrieval", shown(bits_per_byte(reports["retro"], 0))]]
    rows += [[FORMS[name], shown(bits_per_byte(report, 2))] for name, report in reports.items() if report]
    lines.append("What of a neighbour the model uses (k = 2; the model is the same, not trained anew for each line):\n")
    table(["given", "bits per byte"], rows)


def leakage(text):
    report = figure(f"{text}-retro")
    if not report:
        return
    plot(f"leakage-{text}", plots.leakage, report)
    lines.append("By the longest run of tokens that a chunk shares with one of its ten nearest neighbours (intervals: over documents, not families, "
                 "so too narrow where these have several versions):\n")
    rows = [[f"{100 * off['shared_at_most']:g} %", str(off["bytes"]), shown(off), shown(on)]
            for off, on in zip(run_of(report, 0)["leakage"], run_of(report, 2)["leakage"]) if off["shared_at_most"] < 1]
    table(["shared at most", "bytes", "no retrieval", "k = 2"], rows)


def sources(text):
    report = figure(f"{text}-retro")
    if not report:
        return
    on, off = run_of(report, 2)["sources"], run_of(report, 0)["sources"]
    lines.append(f"Sources with {DOCUMENTS_MIN} documents or more; the others are in the JSON:\n")
    table(["source", "documents", "no retrieval", "k = 2"],
          [[name, str(off[name]["documents"]), f"{off[name]['value']:.3f}", f"{on[name]['value']:.3f}"]
           for name in sorted(off) if off[name]["documents"] >= DOCUMENTS_MIN])


def baselines(text):
    report = figure(f"{text}-baselines")
    if not report:
        lines.append("kNN-LM and continuous cache: not evaluated.\n")
        return
    lines.append("Baselines over the plain twin, chosen on every other document and judged on the rest:\n")
    table(["baseline", "memory", "twin alone", "with it", "ratio"],
          [["kNN-LM", f"{report['knn_lm']['store_tokens']} tokens", *(shown(report["knn_lm"][key]) for key in ("model_alone", "bits_per_byte", "to_model_alone"))],
           ["continuous cache", f"{report['continuous_cache']['cache_tokens']} tokens",
            *(shown(report["continuous_cache"][key]) for key in ("model_alone", "bits_per_byte", "to_model_alone"))]])


def update():
    lines.append("## Update without retraining\n\nThrough the running services (`trainer/demo/update.sh`); the model has seen none of these texts, and its weights "
                 "stay as they are. Of each text the first 1,500 characters are judged; the store holds whole ones. Bits per byte over all of them, without intervals:\n")
    path = figures_folder / "update.jsonl"
    if not path.exists():
        lines.append("Not measured.\n")
        return
    rows = [json.loads(line) for line in path.read_text().splitlines()]
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
    lines.append(f"{report['questions']} questions of XQuAD, 240 paragraphs.\n")
    table(["right paragraph among the nearest", "share"], [[among, shown(hit, 3)] for among, hit in report["hits_among"].items()])
    table(["k", "exact match", "F1"], [[str(run["k"]), shown(run["exact_match"], 3), shown(run["f1"], 3)] for run in report["runs"]])


def gpu():
    """What tests/gpu/run.sh and the training runs said of themselves."""
    path = figures_folder / "gpu.jsonl"
    if not path.exists():
        return
    figures = [json.loads(line) for line in path.read_text().splitlines()]
    lines.append("## On a GPU\n")
    lines.append(f"{next(f['card'] for f in figures if f['what'] == 'machine')}; `tests/gpu/run.sh` and `trainer/gpu/train.sh`.\n")
    rows = []
    for dtype in ("fp32", "bf16"):
        of_dtype = [f for f in figures if f["what"] == "parity" and f["dtype"] == dtype]
        rows.append([f"largest difference from the fp64 reference, {len(of_dtype)} models, {dtype}", f"{max(f['max_abs_diff'] for f in of_dtype):.2g}"])
    rows += [[f"{f['name']}", f"{f['passed']} passed" if f["pass"] else "FAILED"] for f in figures if f["what"] == "tests"]
    for f in figures:
        if f["what"] == "bench":
            share = f", {100 * f['ratio']:.1f} % of the device's copy bandwidth" if "ratio" in f else ""
            sessions = f", {f['sessions']} sessions" if "sessions" in f else ""
            rows.append([f"{f['bench']}, retro-425m{sessions}", f"{f['tokens_per_second']:.0f} tokens/s{share}"])
    rows += [[f"training {MODELS[f['model']]}, bf16, 32 windows of 1,024 tokens", f"{f['tokens_per_second']:.0f} tokens/s"] for f in figures if f["what"] == "try"]
    table(["what", "figure"], rows)


def learning_curves():
    if not curves:
        return
    lines.append("## Training\n")
    plot("training", plots.training, curves)


lines.append("# Results\n\nMade by `trainer/demo/results.py` from the files in `docs/results/`, which `TOKENS_MAX=1024 trainer/demo/evaluate.sh` "
             "and `trainer/demo/update.sh` leave; the models are those of `trainer/gpu/train.sh`. The texts (what they are: `trainer/demo/model/README.md`) are not shipped with this "
             "project; on other texts the same scripts give other figures.\n\nBits per byte leave a document's first token out. Intervals: 95 %, bootstrap "
             "over families, which are all versions of one page, where there are any, and else documents.\n")
learning_curves()
for text, title in TEXTS.items():
    if not figure(f"{text}-retro"):
        continue
    report = figure(f"{text}-retro")
    limit, families = report["tokens_per_document_max"], len({family(document) for document in report["documents"]})
    lines.append(f"## {title}\n")
    lines.append(f"{len(report['documents'])} documents" + (f" of {families} families" if families < len(report["documents"]) else "") +
                 (f", the first {limit} tokens of each.\n" if limit else ".\n"))
    for part in (by_k, forms, leakage, sources, baselines):
        part(text)
update()
questions()
gpu()
out.write_text("\n".join(lines).replace("\n\n\n", "\n\n"))
