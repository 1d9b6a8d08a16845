#!/bin/sh
# Starts the service with the demo's bundle, routes the prompts of prompts.txt, shows the decisions, stops.
# demo.sh BUILD_FOLDER
set -eu
build=$1
here=$(cd "$(dirname "$0")" && pwd)
bundle=$here/../weights/demo
scratch=$(mktemp -d)
daemon=
cleanup() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    [ -z "$daemon" ] || wait "$daemon" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT INT TERM

url=ipc://$scratch/bestroute.ipc
echo "Starting the service: bestrouted --bundle $bundle --listen $url"
"$build/bestrouted" --bundle "$bundle" --listen "$url" 2>"$scratch/log" &
daemon=$!
# A ping is answered ok once the bundle is loaded.
tries=0
until "$build/bestroute" ping --url "$url" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ] || ! kill -0 "$daemon" 2>/dev/null; then
        cat "$scratch/log" >&2
        echo "the service did not start" >&2
        exit 1
    fi
    sleep 0.1
done
grep -E ' (bundle|ready|listening)' "$scratch/log" || true
echo
"$build/bestroute" info --url "$url"
echo
"$build/bestroute" route --url "$url" --file "$here/prompts.txt"
