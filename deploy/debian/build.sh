#!/bin/sh
# Builds dist/slabwatch_<version>_<architecture>.deb from this source tree: `make deb`.
#
# Debian 12's own aiohttp is too old, and it has no msgspec: the package brings what slabwatch imports along, below
# /usr/lib/slabwatch, with the versions and hashes of requirements.lock. They are compiled for one minor version of
# Python: the package depends on the one that it was built with.
#
#   PYTHON      the distribution's own interpreter that it is built for (default: /usr/bin/python3)
#   BUILD       an interpreter with pip and hatchling (default: .venv/bin/python)
#   WHEELS      a directory to keep downloaded wheels in (default: a temporary one)
set -eu
umask 022
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-/usr/bin/python3}
BUILD=${BUILD:-.venv/bin/python}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wheels=${WHEELS:-$work/wheels}
root=$work/root
pip() { "$BUILD" -m pip --disable-pip-version-check --python "$PYTHON" "$@" --quiet; }

# The lock also has what builds slabwatch: it is downloaded, its hash is checked, and only what is imported gets in.
"$BUILD" -m hatchling build --target wheel --directory "$work/own" >/dev/null 2>&1
pip download --require-hashes --only-binary :all: --dest "$wheels" --requirement requirements.lock
# Isolated: from these wheels and no others. By name: a path would be noted in the package.
pip install --isolated --no-index --find-links "$wheels" --find-links "$work/own" --no-compile \
    --target "$root/usr/lib/slabwatch" slabwatch
rm -rf "$root/usr/lib/slabwatch/bin"
# Tests and stubs of others, sources of compiled parts.
find "$root/usr/lib/slabwatch" -type d -name tests -prune -exec rm -rf {} +
find "$root/usr/lib/slabwatch" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete

install -d "$root/usr/bin" "$root/usr/share/doc/slabwatch/examples" "$root/usr/share/man" "$root/DEBIAN" \
    "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
    "$root/usr/lib/systemd/system" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
for program in slabwatch slabwatchctl; do
    case $program in
        slabwatch) parser=slabwatch ;;
        slabwatchctl) parser=parser ;;
    esac
    install -m 755 "deploy/bin/$program" "$root/usr/bin/"
    for shell in bash zsh; do
        case $shell in
            bash) completion=$root/usr/share/bash-completion/completions/$program ;;
            zsh) completion=$root/usr/share/zsh/vendor-completions/_$program ;;
        esac
        PYTHONPATH="$root/usr/lib/slabwatch" "$PYTHON" -B -c "import shtab, sys
from slabwatch.cli.$parser import make_parser
print(shtab.complete(make_parser(), sys.argv[1]))" "$shell" >"$completion"
    done
done

for page in docs/man/*; do
    install -d "$root/usr/share/man/man${page##*.}"
    gzip -9nc "$page" >"$root/usr/share/man/man${page##*.}/${page##*/}.gz"
done
install -m 644 systemd/slabwatch.service "$root/usr/lib/systemd/system/"
install -m 644 systemd/slabwatch.sysusers "$root/usr/lib/sysusers.d/slabwatch.conf"
install -m 644 systemd/slabwatch.tmpfiles "$root/usr/lib/tmpfiles.d/slabwatch.conf"
# Drop-ins that give more rights are for the administrator to copy.
for drop_in in systemd/*.conf; do
    install -D -m 644 -t "$root/usr/share/doc/slabwatch/examples/slabwatch.service.d" "$drop_in"
done
install -m 644 config.example.toml "$root/usr/share/doc/slabwatch/examples/slabwatch.toml"
for rules in deploy/prometheus/*.yml; do
    [ -e "$rules" ] && install -D -m 644 -t "$root/usr/share/doc/slabwatch/examples/prometheus" "$rules"
done
install -m 644 README.md CHANGELOG.md "$root/usr/share/doc/slabwatch/"
PYTHONPATH="$root/usr/lib/slabwatch" "$PYTHON" -B deploy/debian/copyright.py "$root/usr/lib/slabwatch" \
    >"$root/usr/share/doc/slabwatch/copyright"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' slabwatch/__init__.py)
architecture=$(dpkg --print-architecture)
maintainer=$(sed -n 's/^Maintainer: //p' deploy/debian/control)
printf 'slabwatch (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' "$version" "$maintainer" \
    "$(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")" | gzip -9n >"$root/usr/share/doc/slabwatch/changelog.gz"
minor=$("$PYTHON" -c 'import sys; print(sys.version_info.minor)')
for script in postinst prerm postrm; do
    install -m 755 "deploy/debian/$script" "$root/DEBIAN/$script"
done
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@PYTHON@/3.$minor/" \
    -e "s/@AFTER@/3.$((minor + 1))/" -e "s/@SIZE@/$(du -ks "$root/usr" | cut -f1)/" \
    deploy/debian/control >"$root/DEBIAN/control"
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
# Times of the commit, so that the same tree gives the same package.
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p dist
dpkg-deb --root-owner-group -Zxz --build "$root" "dist/slabwatch_${version}_${architecture}.deb"
