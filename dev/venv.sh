#!/usr/bin/env bash
# Make the virtual environment $1 with the first Python that is new enough and whole, or say what to install.
set -euo pipefail
place=${1:?usage: venv.sh FOLDER}
if [ -x "$place/bin/python" ] && "$place/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exit 0
fi
seen=""
for python in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    [ -n "$python" ] && command -v "$python" >/dev/null 2>&1 || continue
    # A shim may answer to the name and still have no interpreter behind it: ask it.
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    seen="$seen $python is $version;"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        seen="$seen it has no venv;"
        continue
    fi
    echo "making $place with Python $version …"
    exec "$python" -m venv --clear "$place"
done
echo "stormdrill needs Python 3.11 or newer with its venv module. Here:${seen:- no Python at all.}" >&2
echo "Debian, Ubuntu: apt-get install python3 python3-venv    Fedora: dnf install python3" >&2
echo "Then again, or name one: make demo PYTHON=/path/to/python3" >&2
exit 1
