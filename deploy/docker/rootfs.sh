#!/usr/bin/env bash
# Assembles the image's root filesystem on Debian: the relay, the libraries that it is linked with, CA
# certificates, a user. The Dockerfile runs this, and tests/deploy enters what it makes.
set -euo pipefail

if (($# != 2)); then
    echo 'usage: rootfs.sh BINARY ROOT' >&2
    exit 2
fi
binary=$1 root=$2
uid=65532

# Scanners know a package by its entry here, as in distroless images; licences travel with the files.
declare_package() { # NAME
    local entry=$root/var/lib/dpkg/status.d/${1%%:*}
    if [[ -e $entry ]]; then return; fi
    install -d "$root/var/lib/dpkg/status.d"
    dpkg-query --status "$1" >"$entry"
    install -D -m 644 "/usr/share/doc/${1%%:*}/copyright" "$root/usr/share/doc/${1%%:*}/copyright"
}

copy_library() { # PATH, as the linker has it
    local file owner
    file=$(realpath "$1")
    # dpkg knows some of them by the path from before /lib became a link.
    owner=$(dpkg-query --search "$file" 2>/dev/null || dpkg-query --search "${file#/usr}")
    install -D -m 755 "$file" "$root$1"
    declare_package "${owner%%: *}"
}

install -d -m 755 "$root"
# Function names stay, for backtraces; line tables go.
install -D -m 755 "$binary" "$root/usr/bin/outboxd"
strip --strip-debug "$root/usr/bin/outboxd"
libraries=$(ldd "$binary" | grep -o '/[^ ]*')
for library in $libraries; do copy_library "$library"; done

# One bundle for all: rustls looks in /etc/ssl, OpenSSL (Kafka) where it was built to look.
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
install -d "$root/usr/lib/ssl"
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
declare_package ca-certificates

echo "outboxd:x:$uid:$uid::/:/sbin/nologin" >"$root/etc/passwd"
echo "outboxd:x:$uid:" >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
install -D -m 644 "$(dirname "${BASH_SOURCE[0]}")/../../LICENSE" "$root/usr/share/doc/outboxd/LICENSE"
