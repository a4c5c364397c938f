"""What the Python clients share: their options, the inputs of a run, and its result as a file. Needs numpy."""
import argparse
import json
import os
import pathlib
import struct
import zlib

import numpy as np

# ONNX Runtime asks for this when it is imported, so import this file before it. Else it keeps a store of what it runs, to send it to its maker.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def options(doc):
    """A parser of the options that all clients have; `doc` begins with what the client does."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="an artifact, as smoothcc writes it")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=VALUE", help="numbers with commas between, or a .npy file")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="the result: a .png picture or a .npy file")
    return parser


def prepare(args):
    """The manifest, and the inputs of a run as arrays by name. Ends the program where something is missing."""
    manifest = json.loads((args.folder / "manifest.json").read_text())
    assert_writable(args.output, manifest["outputs"][-1])
    ports = manifest["inputs"]
    given = dict(pair.partition("=")[::2] for pair in args.input)
    for name in given.keys() - {port["name"] for port in ports}:
        raise SystemExit(f"There is no input '{name}', but {', '.join(port['name'] for port in ports)}.")
    generator = np.random.default_rng(args.seed)
    return manifest, {port["name"]: value_of(port, given.get(port["name"]), generator) for port in ports}


def value_of(port, text, generator):
    """What an input gets: what was given for it, else what the manifest says."""
    name, shape = port["name"], port["shape"]
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(port["elem"], port["elem"]))
    if text is not None:
        numbers = np.load(text) if text.endswith(".npy") else np.array([float(part) for part in text.split(",")])
        return np.array(np.broadcast_to(numbers if shape else numbers.reshape(()), shape), dtype, order="C")
    if port.get("draw") == "unit normal":
        return generator.standard_normal(shape, dtype=np.float32)
    if "default" in port:
        return np.full(shape, port["default"], dtype)
    raise SystemExit(f"Say what the input '{name}' {shape} is: --input {name}=VALUE or {name}=FILE.npy")


def assert_writable(file, port):
    shape = port["shape"]
    channels = 3 if port["elem"] == "uint8" else 1
    if file.suffix not in (".png", ".npy"):
        raise SystemExit(f"{file}: the result is written as .png or .npy.")
    if file.suffix == ".png" and (len(shape) != 4 or shape[channels] == 2):
        raise SystemExit(f"The result {shape} is no picture: name a .npy file for it.")


def pixels_of(values, manifest):
    """Bytes [batch, height, width, channels] of [batch, channels, height, width]. Of four channels or more, as a latent has, three are shown."""
    shown = values[:, : 1 if values.shape[1] == 1 else 3].astype(np.float64).transpose(0, 2, 3, 1)
    black, white = manifest["recipe"].get("display", {}).get("range", [-1, 1])
    return np.rint(np.clip(255 * (shown - black) / (white - black), 0, 255)).astype(np.uint8)


def write(file, values, manifest):
    """Writes a result: as numbers, or [batch, channels, height, width], or bytes with channels last, as one PNG with the batch side by side."""
    if file.suffix == ".npy":
        np.save(file, values)
        return
    pixels = np.concatenate(list(values if values.dtype == np.uint8 else pixels_of(values, manifest)), axis=1)
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    # Each row begins with the number of its filter, 0 for none.
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
