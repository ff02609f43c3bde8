#!/bin/sh
# Makes a Debian into a machine for the tests of tests/systemd. It runs in the chroot of the image that scripts/vm
# builds, and as Vagrant's provisioner in a machine that runs; a second run changes nothing.
#     provision.sh [machine] [environment [WHEELS]]        without a word: both
# The environment is a virtual environment with everything but the project's own code, from the directory of wheels
# or, without one, from pip's index. The code is looked for in /opt/swarmcg/checkout.
set -eu
here=$(cd -- "$(dirname -- "$0")" && pwd -P)
place=/opt/swarmcg

machine() {
    install_missing_packages
    # BFQ for io weights, zram for swap; some public boxes bring the disk's driver as a module.
    printf 'bfq\nloop\nzram\nvirtio_blk\n' >/etc/modules-load.d/swarmcg-test.conf
    echo 'options zram num_devices=1' >/etc/modprobe.d/swarmcg-test.conf
    echo 'vm.nr_hugepages = 16' >/etc/sysctl.d/swarmcg-test.conf
    install -m 644 "$here/swarmcg-test-swap.service" "$here/swarmcg-test-disk.service" /etc/systemd/system/
    systemctl enable --quiet swarmcg-test-swap.service swarmcg-test-disk.service
    # The ordinary user of the tests without root. Its manager starts at boot, and has what Debian delegates to it.
    id lab >/dev/null 2>&1 || useradd --create-home --shell /bin/bash lab
    mkdir -p /var/lib/systemd/linger
    : >/var/lib/systemd/linger/lab
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl restart systemd-modules-load.service systemd-sysctl.service
        systemctl start swarmcg-test-swap.service swarmcg-test-disk.service
        loginctl enable-linger lab
    fi
}

install_missing_packages() {
    missing=
    while read -r package; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            missing="$missing $package"
    done <"$here/packages"
    [ -n "$missing" ] || return 0
    apt-get update -qq
    # shellcheck disable=SC2086  # one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
}

environment() {
    mkdir -p "$place"
    if [ -d /vagrant ] && [ ! -L "$place/checkout" ]; then
        rm -rf "${place:?}/checkout"
        ln -s /vagrant "$place/checkout"
    fi
    [ ! -e "$place/venv/ready" ] || return 0
    rm -rf "$place/venv"
    python3 -m venv "$place/venv"
    set -- ${1+--no-index --find-links "$1"} --editable "$place/checkout[$(extras)]"
    "$place/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
    touch "$place/venv/ready"
}

# All optional parts but those that have no place in a guest: image.OURS in scripts/checks/vm.
extras() {
    python3 -c 'import sys, tomllib
extras = tomllib.load(open(sys.argv[1], "rb"))["project"]["optional-dependencies"]
print(",".join(sorted(extras.keys() - {"lint", "parallel"})))' "$place/checkout/pyproject.toml"
}

case ${1-} in
    machine) machine ;;
    environment) shift && environment "$@" ;;
    '') machine && environment ;;
    *) echo "provision.sh: $1 is neither machine nor environment" >&2 && exit 2 ;;
esac
