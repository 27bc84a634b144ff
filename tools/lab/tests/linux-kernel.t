#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# lab: group=build cost=20
# A kernel of tools/bases is fetched whole, in the version of its image, or not at all; and what cannot be
# had is told from what went wrong. On a mirror of our own, of packages with nearly nothing in them.
# shellcheck disable=SC2319 # ok takes the status of a condition, too
out=/virtio-lm/run/linux-kernel
mirror=$out/mirror
rm -rf "$out"
mkdir -p "$out/tools/lab" "$mirror/pool"
. "$(dirname "$0")/tap.sh"

cp /virtio-lm/src/tools/lab/linux-kernel "$out/tools/lab"
printf 'kernel %s\n' 'new fresh' 'gone nowhere' 'old base' >"$out/tools/bases"
arch=$(dpkg --print-architecture)

# deb PACKAGE VERSION DEPENDS FILE...: with these files in it
deb()
{
	deb_name=$1 deb_version=$2 deb_depends=$3
	shift 3
	rm -rf "$out/deb"
	mkdir -p "$out/deb/DEBIAN" "$out/deb/usr/share/doc/$deb_name"
	cat >"$out/deb/DEBIAN/control" <<-CONTROL
		Package: $deb_name
		Version: $deb_version
		Architecture: $arch
		Maintainer: nobody
		Description: nothing
		${deb_depends:+Depends: $deb_depends}
	CONTROL
	sed -i '/^$/d' "$out/deb/DEBIAN/control"
	for file; do
		mkdir -p "$out/deb/${file%/*}"
		echo "include /usr/src/linux-headers-$deb_version-common/Makefile" >"$out/deb/$file"
	done
	if [ "$deb_name" = "linux-headers-$deb_version" ]; then
		mkdir -p "$out/deb/usr/lib/modules/$deb_version"
		ln -s "../../../src/linux-headers-$deb_version" "$out/deb/usr/lib/modules/$deb_version/build"
	fi
	dpkg-deb -b "$out/deb" "$mirror/pool" >/dev/null
}

# kernel VERSION: all packages of one
kernel()
{
	deb "linux-image-$1" "$1" '' "usr/lib/modules/$1/vmlinuz" "usr/lib/modules/$1/kernel/a"
	deb "linux-headers-$1" "$1" '' "usr/src/linux-headers-$1/Makefile"
	deb "linux-source-$1" "$1" '' "usr/src/linux-source-$1.tar.xz"
	deb "linux-image-$arch" "$1" "linux-image-$1"
	deb "linux-headers-$arch" "$1" "linux-headers-$1"
	deb linux-source "$1" "linux-source-$1"
}

# index SUITE PATTERN: what of the pool the suite lists
index()
{
	mkdir -p "$mirror/dists/$1/main/binary-$arch"
	for file in "$mirror"/pool/*.deb; do
		echo "${file##*/}" | grep -q -E "$2" || continue
		dpkg-deb -f "$file"
		echo "Filename: pool/${file##*/}"
		echo "Size: $(wc -c <"$file")"
		echo "SHA256: $(sha256sum <"$file" | cut -d ' ' -f 1)"
		echo
	done >"$mirror/dists/$1/main/binary-$arch/Packages"
	{
		printf 'Suite: %s\nCodename: %s\nComponents: main\nArchitectures: %s\nDate: %s\nSHA256:\n' \
			"$1" "$1" "$arch" "$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S UTC')"
		file=main/binary-$arch/Packages
		cd "$mirror/dists/$1" || exit
		echo " $(sha256sum <"$file" | cut -d ' ' -f 1) $(wc -c <"$file") $file"
	} >"$mirror/dists/$1/Release"
}

# fetch NAME: that kernel, from our mirror in place of the tree's
echo "deb [trusted=yes] copy:$mirror base main" >"$out/sources.list"
fetch()
{
	# shellcheck disable=SC2016 # it is for that shell to expand
	unshare --mount sh -euc 'mount --bind "$1/sources.list" /etc/apt/sources.list; exec "$1/tools/lab/linux-kernel" "$1/$2" "$2"' \
		sh "$out" "$1" >"$out.said" 2>&1
}

# ends WHAT STATUS PATTERN: the last command has, with that in what it said, and left nothing
ends()
{
	status=$?
	[ "$status" = "$2" ] && grep -q -e "$3" "$out.said" && [ ! -e "$out/new" ] && [ ! -e "$out/new.new" ]
	status=$?
	ok $status "$1"
	[ $status = 0 ] || sed 's/^/# /' "$out.said"
}

index base 'none'
fetch gone
ends "a suite that the mirror does not have cannot be had" 3 'does not have nowhere'
index fresh 'none'
fetch new
ends "nor can the kernel of a suite without any" 3 'fresh has no linux-image'
fetch unknown
ends "a name that is not in the table is a mistake" 1 'no kernel unknown'

kernel 9.8.1
kernel 9.8.2
index fresh 'image.*9\.8\.1|(headers|source).*9\.8\.2'
fetch new
ends "nor can an image whose source is gone" 3 'kernel 9.8.1, but no linux-headers'
index fresh '9\.8\.1|(headers|source).*9\.8\.2'
mv "$mirror/pool/linux-source-9.8.1_9.8.1_$arch.deb" "$out"
fetch new
ends "what is listed and is not there cannot be had" 3 'lists Linux 9.8.1, but the mirror does not have all'
mv "$out/linux-source-9.8.1_9.8.1_$arch.deb" "$mirror/pool"

fetch new
ok $? "a kernel that is there is fetched, in the version of its image"
[ -e "$out/new/lib/modules/9.8.1/modules.dep" ] && [ -e "$out/new/lib/modules/9.8.1/vmlinuz" ] &&
	[ -e "$out/new/usr/src/linux-source-9.8.1.tar.xz" ] && [ ! -e "$out/new/lib/modules/9.8.2" ]
ok $? "modules, image and source are of that version, and of no other"
grep -q "^include $out/new/usr/src/" "$out/new/lib/modules/9.8.1/build/Makefile"
ok $? "its headers name the folder that they are in"
[ "$(cat "$out/new/taken")" = 'Linux 9.8.1 (9.8.1) of fresh' ]
ok $? "and it is said what was taken"
sed 's/^/# /' "$out.said"

rm -r "$out" "$out.said"
finish
