#!/usr/bin/env bash
# Proves that the template works on a machine that has Python and make, and little else:
#
#   tools/fresh_machine.sh                # make demo and make check, a quarter of an hour
#   tools/fresh_machine.sh demo test      # other targets of the Makefile
#   PYTHON=/usr/bin/python3.12 tools/fresh_machine.sh
#
# What is committed goes as a tarball, without .git, into a folder with spaces in its name. There the targets run with an
# empty home, the environment variables of pip alone, and a PATH without compilers, nvcc and git; as root they run as
# the user nobody. The folder is left behind if a target fails.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(command -v "${PYTHON:-/usr/bin/python3}")
targets=("$@")
[ $# -gt 0 ] || targets=(demo check)
folder=$(mktemp -d "${TMPDIR:-/tmp}/fresh machine.XXXXXX")
mkdir "$folder/home" "$folder/bin" "$folder/a template"
git archive --format=tar HEAD | tar -x -C "$folder/a template"

for program in /bin/* /usr/bin/*; do
    case ${program##*/} in
        *gcc* | *g++* | cc | c++ | c89* | c99* | *clang* | nvcc | git* | ld | ld.* | *-ld | as | uv | python* | pip*) ;;
        *) ln -sf "$program" "$folder/bin/" ;;
    esac
done
ln -s "$python" "$folder/bin/python3"

as_user=()
if [ "$(id -u)" = 0 ]; then
    chown -R nobody "$folder"
    chmod 755 "$folder"
    as_user=(setpriv --reuid nobody --regid "$(id -g nobody)" --clear-groups)
fi
mapfile -t pip_settings < <(env | grep '^PIP_' || true)
clean=("${as_user[@]}" env -i "HOME=$folder/home" "PATH=$folder/bin" "TMPDIR=$folder/home" LANG=C.UTF-8 "${pip_settings[@]}")

cd "$folder/a template"
for target in "${targets[@]}"; do
    echo "== make $target, in $PWD"
    started=$SECONDS
    "${clean[@]}" make "$target" || { echo "make $target failed; look into $folder"; exit 1; }
    echo "== make $target: $((SECONDS - started)) s"
done
echo "== all well with $("$python" --version), as $("${clean[@]}" id -un), without a compiler and without git"
cd /
rm -rf "$folder"
