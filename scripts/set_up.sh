# Sourced by scripts/serve and scripts/test: makes .venv and installs the gateway into it, when something has changed.
# Says nothing on standard output, which belongs to the program that follows.

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
venv="$root/.venv"

fail() {
  echo "${0##*/}: $1" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13; do
    if [ -n "$candidate" ] && command -v -- "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

make_venv() {
  local python
  python=$(find_python) || fail "Python 3.11 or later is needed; install it, or name one in PYTHON"
  "$python" -m venv --clear "$venv" >/dev/null 2>&1 && return
  # Debian and Ubuntu split ensurepip off into a package of its own.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    local version
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    { apt-get update -q && { apt-get install -qy "python$version-venv" || apt-get install -qy python3-venv; }; } >&2 || true
  fi
  "$python" -m venv --clear "$venv" >&2 || fail "could not make .venv; on Debian and Ubuntu: apt-get install python3-venv"
}

# set_up_python EXTRA: install the gateway with this extra ("" for none), unless the same was installed already.
set_up_python() {
  local stamp="$venv/.installed${1:+-$1}" wanted
  exec 9<"$root"
  if command -v flock >/dev/null; then flock 9; fi # two at once would spoil each other's .venv
  # The place counts: .venv and the editable install hold absolute paths.
  wanted=$( (cat -- "$root/setup.cfg" "$root/pyproject.toml" && printf '%s' "$root") | sha256sum)
  if [ ! -x "$venv/bin/python" ] || [ "$(cat -- "$stamp" 2>/dev/null)" != "$wanted" ]; then
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
    echo "${0##*/}: installing into .venv ..." >&2
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-input -e "$root${1:+[$1]}" >&2 ||
      fail "installing failed; see above"
    printf '%s\n' "$wanted" >"$stamp"
  fi
  exec 9<&-
}

# set_up_node DIRECTORY: install its Node packages, if there is an npm and they are not there yet.
set_up_node() {
  [ -f "$1/package.json" ] && command -v npm >/dev/null || return 0
  local stamp="$1/node_modules/.installed" wanted
  wanted=$(cat -- "$1"/package*.json | sha256sum)
  if [ "$(cat -- "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "${0##*/}: installing Node packages ..." >&2
    (cd -- "$1" && { npm ci --no-audit --no-fund --silent || npm install --no-audit --no-fund --silent; }) >&2 ||
      fail "installing Node packages in $1 failed"
    wanted=$(cat -- "$1"/package*.json | sha256sum) # npm install may have written a lock file
    printf '%s\n' "$wanted" >"$stamp"
  fi
}

# set_up_browser: have a Chromium; tests that need it are skipped otherwise.
set_up_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    if command -v -- "$name" >/dev/null; then return; fi
  done
  install_debian chromium "tests in a browser are skipped"
}

# set_up_systemd: have systemd's checker of units; the test that needs it is skipped otherwise.
set_up_systemd() {
  if ! command -v systemd-analyze >/dev/null; then install_debian systemd "the unit is not checked"; fi
}

# set_up_haproxy: have a balancer; tests of a cluster behind one are skipped otherwise.
set_up_haproxy() {
  if [ ! -x /usr/sbin/haproxy ] && ! command -v haproxy >/dev/null; then
    install_debian haproxy "a cluster is not tried behind a balancer"
  fi
}

# install_debian PACKAGE WITHOUT: install it where this may be done, or say what is WITHOUT it.
install_debian() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "${0##*/}: installing $1 ..." >&2
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$1"; } >&2 && return
  fi
  echo "${0##*/}: there is no $1, and it cannot be installed here: $2" >&2
}
