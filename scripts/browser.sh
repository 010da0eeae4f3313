#!/usr/bin/env bash
# Chromium for the browser tests, from Debian's packages. Where it cannot be had the tests say so and are skipped.
set -u
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
run=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null || { echo "no Chromium and no right to install it: browser tests will be skipped"; exit 0; }
  run=(sudo -n)
fi
command -v apt-get >/dev/null 2>&1 || { echo "no Chromium and no apt-get: browser tests will be skipped"; exit 0; }
"${run[@]}" apt-get -qq update >/dev/null 2>&1
DEBIAN_FRONTEND=noninteractive "${run[@]}" apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null 2>&1 ||
  echo "Chromium could not be installed: browser tests will be skipped"
exit 0
