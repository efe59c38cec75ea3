#!/usr/bin/env bash
# Everything about NVIDIA cards that only a card can show, in one command.
#
#   bench/cuda_check.sh pack [WHEELS]   where Rust is: builds what is needed into target/cuda-check.tar.xz;
#                                       with a folder of wheels, takes them along for Python
#   bench/cuda_check.sh [LOGS]          where the card is: builds nothing, runs everything, within 8 minutes
#
# The second needs this repository's files, the pack, and the driver. With a python3 that has torch, and diffusers
# there or in the pack (pip download --no-deps diffusers), it times the reference as well; with compute-sanitizer it
# looks for memory errors and races. LOGS (target/cuda-check-logs) gets all.log, what every step printed, and the
# measurements as JSON. Exits with 1 if a step failed.
set -uo pipefail
[ "${1:-}" = pack ] || logs=$(realpath -m "${1:-$(dirname "$0")/../target/cuda-check-logs}")
cd "$(dirname "$0")/.."

pack=target/cuda-check.tar.xz
operations=(attention conv elementwise frame group_norm linear norm patch)
# Seconds in all.
time_limit=470

# built NAME CRATE: the program of a test that was built, which there must be one of.
built() {
  local found
  found=$(grep -F "/crates/$2/tests/$1.rs\"" "$room/built.json" | grep -oE '"executable":"[^"]+"' | cut -d'"' -f4 | sort -u)
  [ "$(wc -l <<<"$found")" = 1 ] && [ -x "$found" ] || { echo "$1 of $2 was not built once: $found" >&2; exit 1; }
  cp "$found" "$room/test-$1"
}

build() {
  set -e
  local name
  room=$(mktemp -d)
  trap 'rm -rf "$room"' EXIT
  cargo build --release -p vidfit
  cp target/release/vidfit "$room/vidfit"
  cargo test --release --no-run --message-format=json -p vidfit-cuda --test card --test blas \
    $(printf -- '--test %s ' "${operations[@]}") >"$room/built.json"
  cargo test --release --no-run --message-format=json -p vidfit-engine --test cuda >>"$room/built.json"
  for name in card blas "${operations[@]}"; do built "$name" vidfit-cuda; done
  built cuda vidfit-engine
  rm "$room/built.json"
  strip "$room"/vidfit "$room"/test-*
  [ -z "${1:-}" ] || cp -r "$1" "$room/wheels"
  # The test programs have most of their bytes in common, which xz sees at a distance of 64 MiB.
  tar -C "$room" -cf - . | xz -9 >"$pack.part"
  mv "$pack.part" "$pack"
  ls -lh "$pack"
}

if [ "${1:-}" = pack ]; then
  build "${2:-}"
  exit
fi

mkdir -p "$logs" || exit 2
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
[ -s "$pack" ] || { echo "there is no $pack: make it with bench/cuda_check.sh pack" >&2; exit 2; }
# Python reads it where there is no xz.
tar -C "$here" -xJf "$pack" 2>/dev/null || python3 -m tarfile -e "$pack" "$here" || exit 2
export XDG_STATE_HOME="$here/state" XDG_DATA_HOME="$here/data" XDG_CONFIG_HOME="$here/config"
export CARGO_MANIFEST_DIR="$PWD/crates/vidfit-engine" # where the fixtures are found from
: >"$logs/all.log"
failed=0
passed=0
left_out=0

# step NAME SECONDS COMMAND...: runs it, within its time and what is left of all.
step() {
  local name=$1 limit=$2 began=$SECONDS result code
  shift 2
  if [ "$limit" -gt $((time_limit - SECONDS)) ]; then limit=$((time_limit - SECONDS)); fi
  if [ "$limit" -lt 5 ]; then
    printf '%-28s left out: no time\n' "$name"
    left_out=$((left_out + 1))
    : >"$here/said"
    return
  fi
  timeout -k 5 "$limit" "$@" >"$here/said" 2>&1 </dev/null
  code=$?
  { printf '\n===== %s: %s\n' "$name" "$*"; cat "$here/said"; } >>"$logs/all.log"
  # A test that skips itself has not passed, nor has one that is not there.
  if [ $code = 0 ] && ! grep -qE 'skipped: |test result: ok. 0 passed' "$here/said"; then
    result=passed
    passed=$((passed + 1))
  else
    result="FAILED ($([ $code = 0 ] && echo 'it skipped itself, or there is none' || echo "exit code $code"))"
    failed=$((failed + 1))
  fi
  printf '%-28s %s, %d s\n' "$name" "$result" "$((SECONDS - began))"
  [ "$result" = passed ] || tail -25 "$here/said" | sed 's/^/    /'
}

finish() {
  echo
  echo "$passed passed, $failed failed, $left_out left out, $SECONDS s"
  [ "$failed" = 0 ] && [ "$left_out" = 0 ]
  exit
}

nvidia-smi --query-gpu=name,memory.total,driver_version,pcie.link.gen.current,pcie.link.width.current,clocks.sm,power.limit \
  --format=csv 2>/dev/null | tee -a "$logs/all.log"

# cuBLASLt as Python's packages have it, if the loader knows none.
if [ -z "${VIDFIT_CUBLASLT:-}" ] && ! ldconfig -p 2>/dev/null | grep -q 'libcublasLt.so.1[23]'; then
  found=$(python3 - 2>/dev/null <<'PYTHON'
import glob, os, sys
folders = [*sys.path, *(os.path.dirname(path) for path in glob.glob("/usr/local/cuda*/lib64/libcublasLt.so.1[23]"))]
kinds = ["nvidia/cu13/lib/libcublasLt.so.13", "nvidia/cublas/lib/libcublasLt.so.1[23]", "libcublasLt.so.1[23]"]
print(next((path for kind in kinds for folder in folders for path in glob.glob(os.path.join(folder, kind))), ""))
PYTHON
  )
  [ -z "$found" ] || export VIDFIT_CUBLASLT="$found"
fi

step doctor 120 "$here/vidfit" doctor
cat "$here/said"
grep -q '^ *works: ' "$here/said" || { echo 'there is no card that works'; failed=$((failed + 1)); finish; }
if [ "${VIDFIT_CUBLASLT:-off}" != off ] && ! grep -q 'made by cuBLASLt' "$here/said"; then
  echo "FAILED: products are not made by $VIDFIT_CUBLASLT"
  failed=$((failed + 1))
fi

echo; echo '== operations, each held to the CPU; copies; products'
for name in "${operations[@]}"; do
  step "ops-$name" 60 "$here/test-$name" --ignored --test-threads=1 card::
done
step card 60 "$here/test-card" --nocapture --test-threads=1 --skip driver_over_the_emulation --skip another_library
step products 60 "$here/test-blas" --nocapture --test-threads=1 on_this_machines_card

echo; echo '== whole videos, held to the reference; every placement the same bits'
step videos 60 "$here/test-cuda" --nocapture --test-threads=1 --skip driver_over_the_emulation
step videos-own-products 60 env VIDFIT_CUBLASLT=off \
  "$here/test-cuda" --nocapture --test-threads=1 --skip driver_over_the_emulation
step demo 30 "$here/vidfit" generate 'a red ball moving right' --device cuda:0 -o "$logs/ball.gif" --no-keep

echo; echo '== speed'
[ -d "$here/wheels" ] && for wheel in "$here"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$here/site"; done
export PYTHONPATH="$here/site${PYTHONPATH:+:$PYTHONPATH}"
step bench-5b 150 "$here/vidfit" bench card --device cuda:0 --model 5b --json "$logs/bench-5b.json"
cat "$here/said"
if command -v python3 >/dev/null && python3 -c 'import torch, diffusers' 2>>"$logs/all.log"; then
  step reference-5b 100 "$here/vidfit" bench card --device cuda:0 --model 5b --placements none,sequential \
    --budgets 8GB --python "$(command -v python3)" --json "$logs/reference-5b.json"
  cat "$here/said"
else
  echo 'python3 has no torch and diffusers: the reference is not timed (all.log says more)'
fi

echo; echo '== memory errors and races'
sanitizer=$(command -v compute-sanitizer)
if [ -n "$sanitizer" ] && ! "$sanitizer" "$here/test-patch" --ignored --test-threads=1 card:: >"$here/said" 2>&1 \
  && grep -q 'not supported' "$here/said"; then
  echo 'compute-sanitizer does not work on this machine: nothing was looked for'
elif [ -n "$sanitizer" ]; then
  for name in linear attention conv norm group_norm; do
    step "memcheck-$name" 40 "$sanitizer" --tool memcheck --error-exitcode 9 \
      "$here/test-$name" --ignored --test-threads=1 card::
  done
  step racecheck-linear 40 "$sanitizer" --tool racecheck --error-exitcode 9 \
    "$here/test-linear" --ignored --test-threads=1 card::all_shapes
  step racecheck-attention 40 "$sanitizer" --tool racecheck --error-exitcode 9 \
    "$here/test-attention" --ignored --test-threads=1 card::
else
  echo 'compute-sanitizer is not there: nothing was looked for'
fi
finish
