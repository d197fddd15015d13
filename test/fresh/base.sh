# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# For the scripts here: Debian roots that hold nothing but what is named.
#
#   fresh_base SUITE PACKAGES    .cache/fresh/base-SUITE, by debootstrap from the mirror that this machine's apt sources name
#   fresh_apt ROOT               its apt is this machine's: sources and certificates
fresh=${checkout:?}/.cache/fresh
say() { printf 'fresh: %s\n' "$*" >&2; }

here=$(. /etc/os-release && echo "$VERSION_CODENAME")

fresh_base() {
  local suite=$1 packages=$2 mirror
  mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v suite="$here" '$2 == suite && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || { say "this machine's apt sources do not name Debian $here" && exit 1; }
  base=$fresh/base-$suite
  # what was made with other packages is made anew
  [ "$(cat "$base/.done" 2>/dev/null)" != "$packages" ] || return 0
  say "debootstrap of $suite"
  rm -rf "$base" && mkdir -p "$base"
  debootstrap --variant=minbase --include="$packages" "$suite" "$base" "$mirror" >"$fresh/debootstrap.log" ||
    { tail -n 20 "$fresh/debootstrap.log" >&2 && exit 1; }
  echo "$packages" >"$base/.done"
}

fresh_apt() {
  local root=$1
  rm -rf "$root/etc/apt/sources.list"
  cp -rT /etc/apt "$root/etc/apt"
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  cp -rT /usr/local/share/ca-certificates "$root/usr/local/share/ca-certificates"
  chroot "$root" update-ca-certificates >/dev/null 2>&1
}
