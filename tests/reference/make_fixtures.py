"""Writes everything under fixtures/: see fixtures/README.md, which this script also writes.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make_fixtures.py                      # write
    venv/bin/python make_fixtures.py --check              # write elsewhere, compare with what is there
    venv/bin/python make_fixtures.py --check-sharpness    # do deliberate mistakes show?
"""

import argparse
import filecmp
import importlib.metadata
import os
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
    """The bytes of every file. What a link leads to counts where it is; the link has its own few bytes."""
    found = {}
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in names + links:
            path = Path(folder, name)
            found[str(path.relative_to(root))] = path.lstat().st_size
    return dict(sorted(found.items()))


def differ(here: Path, there: Path) -> bool:
    """Whether two files are not the same, or two links do not lead to the same place."""
    if here.is_symlink() or there.is_symlink():
        return not (here.is_symlink() and there.is_symlink() and os.readlink(here) == os.readlink(there))
    return not filecmp.cmp(here, there, shallow=False)


def write(root: Path) -> None:
    import cases
    import encodes
    import given_cases
    import loras
    import pictures
    import readme
    import tables
    import tiny

    tiny.write_checkpoints(root / "checkpoints")
    given_cases.write(root, cases.write_pipeline_cases(root))
    cases.write(root)
    encodes.write(root)
    loras.write(root)
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
            differing += [name for name in common if differ(args.output / name, Path(folder, name))]
            print("\n".join(differing) or "identical")
            sys.exit(1 if differing else 0)
    stale = files(args.output) if args.output.exists() else {}
    write(args.output)
    for path in stale.keys() - files(args.output).keys():
        print("stale:", path)


if __name__ == "__main__":
    main()
