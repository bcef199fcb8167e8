#!/bin/sh
# Gate a checkpoint in any shell: sh gate.sh OUT/CHECKPOINT ORG/BASE-MODEL
set -u

target=${1:?usage: gate.sh TARGET BASE}
base=${2:?usage: gate.sh TARGET BASE}

llmtrap gate "$target" --baseline "$base" --output html=gate.html --output json=gate.json
code=$?

case $code in
  0) echo "passed" ;;
  1) echo "violated: see gate.html" >&2 ;;
  2) echo "could not audit: see the message above" >&2 ;;
  3) echo "too little could be judged: see gate.json" >&2 ;;
  *) echo "stopped ($code)" >&2 ;;
esac
exit "$code"
