# What quickstart and check do before their work: Debian packages, FAISS's C API, the build, downloads. Sourced by both,
# in the root of the tree; each sets `me`, its name in messages. Every step is silent where there is nothing to do, and
# ends the script with one line that names the step and the remedy where it fails.
#
# OpenBLAS is for FAISS, whose products are 15 times slower on the reference BLAS; its OpenMP build, so that one number
# of threads rules both. libreadline8 is for the Bible's reader (data/get bible).

. data/apt.sh

packages="gcc g++ meson ninja-build pkg-config liblmdb-dev libfaiss-dev libopenblas-openmp-dev libdnnl-dev
    libpcre2-dev libxxhash-dev libcriterion-dev libreadline8 gnuplot-nox python3 python3-pip"

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

setup_packages() {
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
        die "packages: there is no dpkg or apt-get (this set-up is for Debian 12)"
    missing=
    for p in $packages; do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null) in ii*) ;; *) missing="$missing $p" ;; esac
    done
    [ -z "$missing" ] && return
    as=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; } ||
            die "packages: some are missing and there are no rights to install them (as root:" \
                "apt-get install --no-install-recommends$missing)"
        as=sudo
    fi
    say "packages: installing$missing (a minute or two)"
    install="$as env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing"
    # the lists may be missing or old: refresh them only where the packages cannot be had without
    # shellcheck disable=SC2086 # words
    apt_quiet $install || { apt_quiet $as apt-get update && apt_quiet $install; } ||
        die "packages: $(apt_why) (see that the network, or the proxy set, reaches the Debian mirror; then run it again)"
}

setup_build() {
    index/build-faiss-c build || exit 1
    build_in build all --buildtype=release
}

# The programs of the tests, and those that run under each sanitizer. gcc warns of things that are not there when it
# instruments. What the undefined behaviour's sanitizer sees ends the program, as an address does.
setup_sanitized() {
    build_in build-asan meson-test-prereq --buildtype=debugoptimized -Db_lundef=false -Dwerror=false \
        -Db_sanitize=address,undefined -Dc_args=-fno-sanitize-recover=undefined
    build_in build-tsan stress --buildtype=debugoptimized -Db_lundef=false -Dwerror=false \
        -Db_sanitize=thread
}

build_in() { # build_in DIRECTORY TARGET OPTION...: configured by meson with these options where it is new
    dir=$1 target=$2
    shift 2
    if [ ! -f "$dir/build.ninja" ]; then
        say "$dir: configuring"
        meson setup "$dir" "$@" >"$tmp/log" 2>&1 ||
            die "$dir: $(grep -m 1 ERROR "$tmp/log" || tail -n 1 "$tmp/log") (more in $dir/meson-logs/meson-log.txt)"
    fi
    ninja -C "$dir" -n "$target" 2>/dev/null | grep -q 'no work to do' && return
    say "$dir: compiling"
    ninja -C "$dir" "$target" >"$tmp/log" 2>&1 ||
        { cat "$tmp/log" >&2; die "$dir: failed (above; again with: ninja -C $dir $target)"; }
}

setup_data() { # setup_data WHAT...: model, books, bible, code
    for what in "$@"; do
        # the kernel texts that the defaults are chosen and the tests run on, read in one go
        case $what in code) what="code kernel/sched fs/ext4 net/sctp" ;; esac
        # shellcheck disable=SC2086 # words
        data/get $what || exit 1
    done
}
