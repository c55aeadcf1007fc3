#!/usr/bin/env bash
# Builds the CPU image without Docker and without an image registry, with a clean Debian instead of the base image. Then starts
# the server as the image's user on a read-only root, asks it for an answer, and stops it with SIGTERM. Needs root, and Debian's
# packages buildah and debootstrap. Arguments go to `buildah build`: --build-arg TORCH_INDEX=..., or --volume for pip's configuration.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
b() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
trap 'b rm --all > /dev/null; rm -rf "$work"' EXIT
export BUILDAH_ISOLATION=chroot

# Debian's Python has the same minor version as the base image.
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/debian"
ln -s python3 "$work/debian/usr/bin/python"
container=$(b from scratch)
b add --quiet "$container" "$work/debian" /
b config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
b commit --rm --quiet "$container" "docker.io/library/$(sed -n 's/^FROM \(python:.*\) AS base$/\1/p' Dockerfile)"

b build --pull-never --format docker --build-arg DEVICE=cpu "$@" --tag gram-server .

container=$(b from --pull-never gram-server)
config() { b inspect --format "{{range .OCIv1.Config.$1}}{{.}} {{end}}" "$container"; }
root=$(b mount "$container")
# exec leaves no shell in between, so the signal reaches the server itself.
# shellcheck disable=SC2046
GRAM_PORT=18000 unshare --mount bash -ec '
    root=$1 user=$2
    shift 2
    mount --bind -o ro "$root" "$root"
    mount -o remount,ro,bind "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec chroot --userspec="$user" "$root" env -i GRAM_PORT="$GRAM_PORT" "$@"
' - "$root" "$(b inspect --format '{{.OCIv1.Config.User}}' "$container")" $(config Env) $(config Entrypoint) $(config Cmd) &
server=$!
for _ in $(seq 300); do
    curl --silent --fail --output /dev/null http://127.0.0.1:18000/health/ready && break
    kill -0 "$server"
    sleep 1
done
curl --silent --fail http://127.0.0.1:18000/v1/solve --header 'content-type: application/json' \
    --data '{"task": "nqueens-8", "puzzle": "g7 a4", "num_trajectories": 3, "seed": 1, "top": 1}'
kill -TERM "$server"
wait "$server"
echo "
The image builds, answers on a read-only root as $(b inspect --format '{{.OCIv1.Config.User}}' "$container") and stops at SIGTERM."
