#!/usr/bin/env python3
"""Compiles the kernels to ptx/, which is part of the program.

    python3 crates/vidfit-cuda/kernels/make_ptx.py [--check | --get] [--folder FOLDER]

Needs neither a card nor a toolkit: NVRTC comes from PyPI, in the versions of requirements.txt and
requirements-newer.txt, and is kept in FOLDER (target/nvrtc). What is written is for sm_75 and sm_80; a
driver compiles it for its card. That the kernels also compile for newer ones is only checked. With
--check nothing is written; it fails if ptx/ is not what the sources make. --get only gets NVRTC.
"""

import argparse
import ctypes
import hashlib
import re
import subprocess
import sys
from pathlib import Path

KERNELS = Path(__file__).resolve().parent
PTX = KERNELS.parent / "ptx"
ROOT = KERNELS.parents[2]

# requirements, architectures that are written, architectures that are only tried
COMPILERS = [
    ("requirements.txt", ["75", "80"], ["86", "89", "90a"]),
    ("requirements-newer.txt", [], ["100", "120"]),
]
OPTIONS = ["--std=c++17", "--fmad=true", f"-I{KERNELS}"]


def digest():
    """Of all sources. tests/ptx.rs does the same."""
    whole = hashlib.sha256()
    for path in sorted(p for p in KERNELS.iterdir() if p.suffix in (".cu", ".cuh")):
        whole.update(f"{path.name} {path.stat().st_size}\n".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()


def first_line(sources, ptx):
    """Says what it was made of, and what was made, so that neither changes without the other. tests/ptx.rs
    holds both against what there is."""
    made = hashlib.sha256(ptx.encode()).hexdigest()
    return f"// The kernels of vidfit, made by kernels/make_ptx.py. SHA-256 of the sources: {sources}, of what is below: {made}"


class Nvrtc:
    def __init__(self, requirements, folder):
        pinned = re.search(r"^([\w-]+)==([\d.]+)", (KERNELS / requirements).read_text(), re.M)
        self.version = pinned[2]
        home = folder / self.version
        if not home.exists():
            install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(home)]
            subprocess.run([sys.executable, *install, "-r", str(KERNELS / requirements)], check=True)
        libraries = [*home.glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.*"), *home.glob("nvidia/cuda_nvrtc/bin/nvrtc64_*.dll")]
        library = next(path for path in libraries if "builtins" not in path.name and "alt" not in path.name)
        self.library = ctypes.CDLL(str(library))

    def check(self, result, what):
        if result:
            self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
            sys.exit(f"NVRTC {self.version}: {what}: {self.library.nvrtcGetErrorString(result).decode()}")

    def text(self, program, kind):
        """The program's PTX or ProgramLog."""
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)), kind)
        text = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f"nvrtcGet{kind}")(program, text), kind)
        return text.value.decode()

    def compile(self, architecture):
        program = ctypes.c_void_p()
        source = (KERNELS / "all.cu").read_bytes()
        made = self.library.nvrtcCreateProgram(ctypes.byref(program), source, b"all.cu", 0, None, None)
        self.check(made, "all.cu")
        options = [f"--gpu-architecture=compute_{architecture}", *OPTIONS]
        texts = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = self.library.nvrtcCompileProgram(program, len(options), texts)
        log = self.text(program, "ProgramLog").strip()
        if log:
            print(log, file=sys.stderr)
        # A warning is as good as an error: nobody would read it a second time.
        if failed or log:
            sys.exit(f"NVRTC {self.version} does not compile the kernels for sm_{architecture}")
        ptx = self.text(program, "PTX")
        self.check(self.library.nvrtcDestroyProgram(ctypes.byref(program)), "all.cu")
        print(f"sm_{architecture}: NVRTC {self.version}, {ptx.count('.visible .entry')} kernels, {len(ptx)} bytes")
        return ptx


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--get", action="store_true", help="get NVRTC, and no more")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "nvrtc", help="where NVRTC is kept")
    given = parser.parse_args()
    sources = digest()
    stale = []
    for requirements, written, tried in COMPILERS:
        nvrtc = Nvrtc(requirements, given.folder)
        if given.get:
            continue
        for architecture in written:
            ptx = nvrtc.compile(architecture)
            ptx = f"{first_line(sources, ptx)}\n{ptx}"
            path = PTX / f"sm_{architecture}.ptx"
            if given.check:
                if not path.exists() or path.read_text() != ptx:
                    stale.append(path.name)
            else:
                PTX.mkdir(exist_ok=True)
                path.write_text(ptx)
        for architecture in tried:
            nvrtc.compile(architecture)
    if stale:
        sys.exit(f"not what the sources make: {', '.join(stale)}; run kernels/make_ptx.py")


if __name__ == "__main__":
    main()
