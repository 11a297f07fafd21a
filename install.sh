#!/bin/sh
# Installs the newest release of meshproof for this machine, after checking its SHA-256.
#   MESHPROOF_VERSION   a tag such as v0.1.0 (default: the newest)
#   MESHPROOF_BIN       where to put the program (default: ~/.local/bin)
#   MESHPROOF_RELEASES  where releases are (default: the project's page)
set -eu

releases=${MESHPROOF_RELEASES:-https://github.com/meshproof/meshproof/releases}
bin=${MESHPROOF_BIN:-$HOME/.local/bin}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

case $(uname -s)/$(uname -m) in
  Linux/x86_64) target=x86_64-unknown-linux-musl ;;
  Linux/aarch64 | Linux/arm64) target=aarch64-unknown-linux-musl ;;
  *) fail "no release for $(uname -s) on $(uname -m) (hint: cargo install --locked --git https://github.com/meshproof/meshproof)" ;;
esac

if [ -n "${MESHPROOF_VERSION:-}" ]; then
  from=$releases/download/$MESHPROOF_VERSION
else
  from=$releases/latest/download
fi
name=meshproof-$target
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

for file in "$name.tar.gz" SHA256SUMS; do
  curl --fail --silent --show-error --location --retry 3 --output "$temp/$file" "$from/$file" ||
    fail "$from/$file is not available"
done
(cd "$temp" && grep " $name.tar.gz\$" SHA256SUMS | sha256sum --check --quiet --strict -) ||
  fail "$name.tar.gz does not have the SHA-256 of SHA256SUMS; nothing was installed"
tar --extract --gzip --directory "$temp" --file "$temp/$name.tar.gz"
mkdir -p "$bin"
install -m 0755 "$temp/$name/meshproof" "$bin/meshproof"
echo "installed $("$bin/meshproof" --version) as $bin/meshproof"
case :$PATH: in
  *":$bin:"*) ;;
  *) echo "add $bin to PATH" ;;
esac
