#!/bin/sh
# Makes sure that the packages of cmake/packages.txt are installed (further lists may be named as arguments).
# As root it installs what is missing; as anybody else it prints the command that does.
set -eu
folder=$(dirname "$0")
missing=
updated=
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
offered() { apt-cache show "$1" >/dev/null 2>&1; }

for line in $(cat "$folder/packages.txt" "$@" | sed 's/#.*//'); do
    have=
    for name in $(echo "$line" | tr '|' ' '); do
        if installed "$name"; then have=yes; fi
    done
    [ -n "$have" ] && continue
    if [ -z "$updated" ] && [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        updated=yes
    fi
    choice=
    for name in $(echo "$line" | tr '|' ' '); do
        if [ -z "$choice" ] && offered "$name"; then choice=$name; fi
    done
    missing="$missing ${choice:-${line%%|*}}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "Some packages are missing. Install them, then run the same command again:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y$missing" >&2
    exit 1
fi
