"""Writes everything under fixtures/: see fixtures/README.md, which this script also writes.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make_fixtures.py                      # write
    venv/bin/python make_fixtures.py --check              # write elsewhere, compare with what is there
    venv/bin/python make_fixtures.py --check-sharpness    # do deliberate mistakes show?
"""

import argparse
import filecmp
import importlib.metadata
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT = 10_000_000


def check_versions() -> None:
    wrong = []
    for line in (HERE / "requirements.txt").read_text().split():
        package, wanted = line.split("==")
        found = importlib.metadata.version(package).split("+")[0]
        if found != wanted:
            wrong.append(f"{package} is {found}, the fixtures are made with {wanted}")
    if wrong:
        sys.exit("\n".join(wrong) + "\nInstall requirements.txt into a fresh environment.")


def files(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_size for p in sorted(root.rglob("*")) if p.is_file()}


def write(root: Path) -> None:
    import cases
    import pictures
    import readme
    import tables
    import tiny

    tiny.write_checkpoints(root / "checkpoints")
    cases.write(root)
    tables.write(root)
    pictures.write(root)
    readme.write(root, files(root))
    total = sum(files(root).values())
    print(f"{total} bytes in {len(files(root))} files")
    if total > LIMIT:
        sys.exit(f"more than {LIMIT} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "fixtures")
    parser.add_argument("--check", action="store_true", help="compare with the fixtures that are there")
    parser.add_argument("--check-sharpness", action="store_true", help="print how far deliberate mistakes miss")
    args = parser.parse_args()
    check_versions()

    import diffusers.utils.logging
    import torch
    import transformers.utils.logging

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    if args.check_sharpness:
        import sharpness

        sys.exit(0 if sharpness.check(args.output) else 1)
    if args.check:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            here, there = files(args.output), files(Path(folder))
            differing = sorted(here.keys() ^ there.keys())
            common = sorted(here.keys() & there.keys())
            differing += filecmp.cmpfiles(args.output, folder, common, shallow=False)[1]
            print("\n".join(differing) or "identical")
            sys.exit(1 if differing else 0)
    stale = files(args.output) if args.output.exists() else {}
    write(args.output)
    for path in stale.keys() - files(args.output).keys():
        print("stale:", path)


if __name__ == "__main__":
    main()
