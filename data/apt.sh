# Debian packages by name, without installing them and without touching the system's package lists.
# Sourced by data/get and index/build-faiss-c; each sets `me`, its name in messages, and `tmp`, a folder it removes.
#
# apt's own settings stay in force (sources, keys, proxies); what is overridden: downloads run as the caller, for _apt
# may not write to our folders and root would see a warning for each file, and a silent server is given up after 30 s.

say() { echo "$me: $*" >&2; }
die() { say "$*"; exit 1; }

apt_quiet() { # apt_quiet COMMAND...: run it; what it said goes to $tmp/log
    "$@" -q -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=30 \
        -o Acquire::https::Timeout=30 >"$tmp/log" 2>&1
}

apt_why() { # the first error of the last command, on one line
    why=$(sed -n 's/^E: //p' "$tmp/log" | head -n 1 | tr -s ' ')
    echo "${why:-$(tail -n 1 "$tmp/log")}"
}

# apt_lists deb|deb-src: package lists of our own, in $tmp/apt, from the system's sources turned into that type;
# sets `apt_own`, the options with which apt uses them. Works without rights.
apt_lists() {
    apt=$tmp/apt
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    for f in "$list" "$parts"/*.list; do
        [ -f "$f" ] && sed -n -E "s/^[[:space:]]*deb(-src)?([[:space:]])/$1\2/p" "$f"
    done | sort -u >"$apt/parts/own.list"
    for f in "$parts"/*.sources; do
        [ -f "$f" ] && sed -E "s/^Types:.*/Types: $1/" "$f" >"$apt/parts/${f##*/}"
    done
    apt_own="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$apt/parts
        -o Dir::State::Lists=$apt/lists -o Dir::Cache=$apt/cache"
    # shellcheck disable=SC2086 # options, one word each
    if ! apt_quiet apt-get update $apt_own || grep -q '^[EW]: Failed to fetch' "$tmp/log"; then
        sed 's/^W: /E: /' "$tmp/log" >"$tmp/log2" && mv "$tmp/log2" "$tmp/log"
        return 1
    fi
}
