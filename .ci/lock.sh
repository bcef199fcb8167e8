#!/usr/bin/env bash
# Resolve the newest releases within pyproject's ranges, in an environment of their own, and write requirements/dev.txt.
# torch is left out, and so is what only its GPU builds need: which build is right depends on the machine (see Makefile).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --upgrade pip
"$folder/bin/pip" install --quiet "$1"
"$folder/bin/pip" install --quiet -e '.[dev,fuzz]'
{
  echo "# The releases that CI runs with, as constraints: see 'make lock'. pyproject.toml has the ranges."
  "$folder/bin/pip" freeze --exclude-editable --exclude torch --exclude triton | grep -viE '^(nvidia|cuda)-'
} > requirements/dev.txt
# What the action installs: the dependencies of the core and what builds it, with the hashes of all their files.
"$folder/bin/pip" install --quiet uv
{
  echo "# What the action installs, with the hashes of every file: see 'make lock'. hatchling builds the action's own revision."
  echo 'hatchling>=1.26' > "$folder/build.in"
  "$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    -c requirements/dev.txt pyproject.toml "$folder/build.in"
} > requirements/action.txt
