#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Gets what a test guest boots from - a Debian cloud kernel, an initramfs made
# of busybox and init, PC firmware - into a directory of the cache, and prints
# that directory on the last line of standard output.  Everything else it says
# goes to standard error.  A second run finds the directory and does nothing.
#
# No package of the guest is installed: the packages come from the machine's own
# apt sources and are unpacked into the cache.  Installing firmware would pull
# in a QEMU of its own, and a kernel would end up in the machine's boot loader.

set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${QBM_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/qbm}

# What the guest loads, in no particular order: their dependencies follow.
modules="virtio_pci virtio_blk virtio_scsi sd_mod ext4 crc32c_generic"

say() { echo "guest: $*" >&2; }
die() { say "$*"; exit 1; }

# apt with lists and archives of its own in $work: needs no root, and leaves the
# machine's package state alone.
private_apt() {
    tool=$1
    shift
    "$tool" -qq -o "Dir::State::Lists=$work/apt/lists" \
        -o "Dir::Cache=$work/apt/cache" \
        -o "APT::Sandbox::User=" -o "Debug::NoLocking=1" "$@"
}

# The kernel package that the meta package stands for today.
kernel_package() {
    private_apt apt-cache depends --important linux-image-cloud-amd64 |
        sed -n 's/^ *Depends: *\(linux-image-[^ ]*\)$/\1/p' | head -n 1
}

download() {
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/root"
    say "reading the package lists"
    private_apt apt-get update >&2
    kernel=$(kernel_package)
    [ -n "$kernel" ] || die "linux-image-cloud-amd64 is in none of this machine's apt sources"
    say "downloading $kernel, busybox-static, seabios, qemu-system-data"
    (cd "$work/apt" &&
        private_apt apt-get download "$kernel" busybox-static seabios qemu-system-data >&2)
    for package in "$work"/apt/*.deb; do
        dpkg -x "$package" "$work/root"
    done
}

# Prints the path of one module's file; nothing when the kernel has it built in.
module_file() {
    find "$work/root" -path '*/modules/*' \
        \( -name "$1.ko*" -o -name "$(echo "$1" | tr _ -).ko*" \) | head -n 1
}

# Puts a module into the initramfs and, before it in modules.list, all that it
# needs.  A module names its needs itself; modules.dep is not in the package.
add_module() {
    grep -qx "$1" "$tree/modules.list" && return 0
    file=$(module_file "$1")
    [ -n "$file" ] || return 0
    case $file in
    *.xz) xz -dc "$file" ;;
    *.zst) zstd -qdc "$file" ;;
    *) cat "$file" ;;
    esac >"$tree/modules/$1.ko"
    for need in $(tr '\0' '\n' <"$tree/modules/$1.ko" | sed -n 's/^depends=//p' | tr ',-' ' _'); do
        add_module "$need"
    done
    echo "$1" >>"$tree/modules.list"
}

build_initramfs() {
    tree=$work/initramfs
    mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/mnt" "$tree/modules"
    busybox=$(find "$work/root" -path '*bin/busybox' | head -n 1)
    [ -n "$busybox" ] || die "the package busybox-static holds no busybox"
    cp "$busybox" "$tree/bin/busybox"
    cp "$here/init" "$tree/init"
    chmod 0755 "$tree/init" "$tree/bin/busybox"

    : >"$tree/modules.list"
    for module in $modules; do
        add_module "$module"
    done
    # Not compressed: the guest is emulated, and reads faster than it inflates.
    (cd "$tree" && find . | "$busybox" cpio -o -H newc) >"$out/initramfs" 2>/dev/null
}

collect() {
    out=$work/out
    mkdir -p "$out/firmware"
    cp "$work"/root/boot/vmlinuz-* "$out/vmlinuz"
    cp "$work"/root/usr/share/seabios/bios*.bin "$out/firmware/"
    for blob in linuxboot_dma.bin kvmvapic.bin; do
        cp "$work/root/usr/share/qemu/$blob" "$out/firmware/"
    done
    say "making the initramfs"
    build_initramfs
}

key() {
    {
        cat "$here/fetch.sh" "$here/init"
        # Another release of Debian has another kernel.
        sed -n 's/^VERSION_ID=//p' /etc/os-release
    } | sha256sum | cut -c 1-16
}

# The host's side of a guest's disk (mkfs.ext4, e2fsck, debugfs), and of its modules.
"$here/../../qemu-glue/packages.sh" e2fsprogs xz-utils >&2

target=$cache/guest/$(key)
if [ ! -e "$target/initramfs" ]; then
    mkdir -p "$cache/guest"
    work=$(mktemp -d "$cache/guest/.making.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    download
    collect
    # Two runs at once make the same thing: who comes second leaves it.
    mv -T "$work/out" "$target" 2>/dev/null || [ -e "$target/initramfs" ] ||
        die "cannot move the result to $target"
fi
say "ready in $target"
echo "$target"
