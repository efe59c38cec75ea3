#!/usr/bin/env bash
# Everything about NVIDIA cards that only a card can show, in one command.
#
#   bench/cuda_check.sh pack            where Rust is: builds what is needed into target/cuda-check.tar.xz
#   bench/cuda_check.sh [LOGS]          where the card is: builds nothing, runs everything, within 8 minutes
#
# The second needs this repository's files, the pack, and the driver. With a python3 that has torch and diffusers
# it times the reference as well; with compute-sanitizer it looks for memory errors and races. What each step
# prints is kept in LOGS (target/cuda-check-logs). Exits with 1 if a step failed.
set -uo pipefail
cd "$(dirname "$0")/.."

pack=target/cuda-check.tar.xz
operations=(attention conv elementwise frame group_norm linear norm patch)

build() {
  set -e
  local built name
  room=$(mktemp -d)
  trap 'rm -rf "$room"' EXIT
  cargo build --release -p vidfit
  cp target/release/vidfit "$room/vidfit"
  cargo test --release --no-run --message-format=json -p vidfit-cuda -p vidfit-engine \
    --test card --test blas --test cuda $(printf -- '--test %s ' "${operations[@]}") >"$room/built.json"
  for name in card blas cuda "${operations[@]}"; do
    built=$(grep -oE "\"executable\":\"[^\"]*/$name-[0-9a-f]+\"" "$room/built.json" | tail -1 | cut -d'"' -f4)
    cp "$built" "$room/test-$name"
  done
  rm "$room/built.json"
  strip "$room"/vidfit "$room"/test-*
  # The test programs have most of their bytes in common, which xz sees at a distance of 64 MiB.
  tar -C "$room" -cf - . | xz -9 >"$pack.part"
  mv "$pack.part" "$pack"
  ls -lh "$pack"
}

if [ "${1:-}" = pack ]; then
  build
  exit
fi

logs=${1:-target/cuda-check-logs}
mkdir -p "$logs"
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
[ -s "$pack" ] || { echo "there is no $pack: make it with bench/cuda_check.sh pack" >&2; exit 2; }
# Python reads it where there is no xz.
tar -C "$here" -xJf "$pack" 2>/dev/null || python3 -m tarfile -e "$pack" "$here" || exit 2
export HOME="$here" # whatever is remembered of other runs
export CARGO_MANIFEST_DIR="$PWD/crates/vidfit-engine" # where the fixtures are found from
failed=0
passed=0

# step NAME SECONDS COMMAND...: runs it, within a time.
step() {
  local name=$1 limit=$2 began result
  shift 2
  began=$SECONDS
  if timeout "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null; then
    result=passed
    passed=$((passed + 1))
  else
    result="FAILED ($?)"
    failed=$((failed + 1))
  fi
  # A test that skips itself has not passed.
  if [ "$result" = passed ] && grep -q '^skipped: ' "$logs/$name.log"; then
    result='FAILED (it skipped itself)'
    passed=$((passed - 1))
    failed=$((failed + 1))
  fi
  printf '%-34s %s, %d s\n' "$name" "$result" "$((SECONDS - began))"
  [ "$result" = passed ] || tail -25 "$logs/$name.log" | sed 's/^/    /'
}

# optional NAME SECONDS COMMAND...: the same, if there is time left for it.
optional() {
  if [ $((SECONDS + $2)) -gt 470 ]; then
    printf '%-34s left out: no time\n' "$1"
  else
    step "$@"
  fi
}

nvidia-smi --query-gpu=name,memory.total,driver_version,pcie.link.gen.current,pcie.link.width.current --format=csv,noheader 2>/dev/null
step doctor 120 "$here/vidfit" doctor
cat "$logs/doctor.log"

echo; echo '== operations, each held to the CPU'
for name in "${operations[@]}"; do
  step "ops-$name" 60 env VIDFIT_TEST_CARD=1 "$here/test-$name" --test-threads=1 --skip in_many_launches
done
step card 60 "$here/test-card" --nocapture --test-threads=1 --skip driver_over_the_emulation
step products 60 "$here/test-blas" --nocapture --test-threads=1 on_this_machines_card

echo; echo '== whole videos, held to the reference; every placement the same bits'
step videos 100 "$here/test-cuda" --nocapture --test-threads=1 --skip driver_over_the_emulation
step videos-own-products 100 env VIDFIT_CUBLASLT=off \
  "$here/test-cuda" --nocapture --test-threads=1 --skip driver_over_the_emulation
step demo 60 "$here/vidfit" generate 'a red ball moving right' --device cuda:0 -o "$logs/ball.gif" --no-keep

echo; echo '== speed'
python=()
if command -v python3 >/dev/null && python3 -c 'import torch, diffusers' 2>/dev/null; then
  python=(--python "$(command -v python3)")
else
  echo 'python3 has no torch and diffusers: the reference is not timed'
fi
step bench-5b 180 "$here/vidfit" bench card --device cuda:0 --model 5b --json "$logs/bench-5b.json" "${python[@]}"
cat "$logs/bench-5b.log"

echo; echo '== memory errors and races'
if command -v compute-sanitizer >/dev/null; then
  for name in linear attention conv norm group_norm; do
    optional "memcheck-$name" 45 env VIDFIT_TEST_CARD=1 compute-sanitizer --tool memcheck --error-exitcode 9 \
      "$here/test-$name" --test-threads=1 --skip in_many_launches
  done
  optional racecheck-linear 45 env VIDFIT_TEST_CARD=1 compute-sanitizer --tool racecheck --error-exitcode 9 \
    "$here/test-linear" --test-threads=1 all_shapes
  optional racecheck-attention 45 env VIDFIT_TEST_CARD=1 compute-sanitizer --tool racecheck --error-exitcode 9 \
    "$here/test-attention" --test-threads=1 --skip in_many_launches
else
  echo 'compute-sanitizer is not there: nothing was looked for'
fi
optional bench-2b 60 "$here/vidfit" bench card --device cuda:0 --model 2b --json "$logs/bench-2b.json"
[ -s "$logs/bench-2b.log" ] && cat "$logs/bench-2b.log"

echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
