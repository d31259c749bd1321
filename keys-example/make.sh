#!/bin/sh
# Make the keys of this folder anew. Run it in an empty folder: keys are never overwritten.
set -eu

provenance keygen builder.key
provenance keygen post-quantum.key --algorithm ml-dsa-65
provenance keygen log.key --algorithm ed25519

EXAMPLE_PASSWORD=example
export EXAMPLE_PASSWORD
provenance keygen encrypted.key --password-env EXAMPLE_PASSWORD

scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
provenance log init "$scratch/log" --origin example.com/provenance-log --key log.key
cp "$scratch/log/vkey" log.vkey
