#!/usr/bin/env python3
"""Plays an artifact's segments in turn: a progress bar, previews, one part in memory at a time. Ctrl-C stops it between two parts.

    smoothcc compile MODEL --plan plan.json --segments 4 -o DIR
    python segments.py DIR --input class_labels=18 --output picture.png [--seed 1] [--previews FOLDER]

A preview is the latent as it stands at that row of the sampler's table, noise and all. Needs numpy and onnxruntime.
"""
import pathlib
import signal
import sys

from artifact import assert_writable, options, prepare, write  # before onnxruntime, which it keeps from telling its maker what it runs
from run import open_session

import onnxruntime as ort


def main():
    parser = options(__doc__)
    parser.add_argument("--previews", type=pathlib.Path, metavar="FOLDER", help="where a picture goes after each part")
    args = parser.parse_args()
    manifest, feeds = prepare(args)
    segments, rows = manifest.get("segments"), manifest["evaluations"]
    if not segments:
        raise SystemExit(f"{args.folder} is in one part: compile it with --segments N, or use run.py.")
    if args.previews:
        assert_writable(args.previews / "0.png", manifest["outputs"][0])
        args.previews.mkdir(exist_ok=True)
    # A part cannot be interrupted; what has been asked meanwhile is done after it.
    asked = []
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))

    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
    results = {port["name"] for port in manifest["outputs"]}
    draw_bar(0, rows)
    for i, part in enumerate(segments):
        session = open_session(args.folder / part["model"], manifest["load"])
        own = {name: values[name] for name in part["inputs"]}
        values.update(zip(part["outputs"], session.run_with_ort_values(part["outputs"], own)))
        del session
        draw_bar(part["to"], rows)
        if args.previews and part["latent"] in values:
            write(args.previews / f"{part['to']}.png", values[part["latent"]].numpy(), manifest)
        if asked and part is not segments[-1]:
            print(f"\nstopped after {part['to']} of {rows} rows", file=sys.stderr)
            raise SystemExit(130)
        needed = results.union(*(later["inputs"] for later in segments[i + 1 :]))
        values = {name: value for name, value in values.items() if name in needed}
    print(file=sys.stderr)
    write(args.output, values[manifest["outputs"][-1]["name"]].numpy(), manifest)


def draw_bar(done, rows, width=40):
    filled = width * done // rows
    print(f"\r[{'#' * filled}{'.' * (width - filled)}] {done}/{rows}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
