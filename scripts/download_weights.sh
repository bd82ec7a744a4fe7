#!/usr/bin/env bash
# Download published ImageNet weights of backbones to where the configs expect them, and compare their hashes:
#   bash scripts/download_weights.sh NAME...      (mit_b0 ... mit_b5, swin_tiny, resnet50, resnet101)
# What is there already is kept. The files' terms are their authors' (checkpoint/README.md).
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
folder="$root/checkpoint/pretrained"
mit=https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer
swin=https://github.com/SwinTransformer/storage/releases/download/v1.0.0
torchvision=https://download.pytorch.org/models

# name, file, address; OpenMMLab and torchvision put the first digits of the SHA-256 at the end of the name
files="
mit_b0 mit/mit_b0.pth $mit/mit_b0_20220624-7e0fe6dd.pth
mit_b1 mit/mit_b1.pth $mit/mit_b1_20220624-02e5a6a1.pth
mit_b2 mit/mit_b2.pth $mit/mit_b2_20220624-66e8bf70.pth
mit_b3 mit/mit_b3.pth $mit/mit_b3_20220624-13b1141c.pth
mit_b4 mit/mit_b4.pth $mit/mit_b4_20220624-d588d980.pth
mit_b5 mit/mit_b5.pth $mit/mit_b5_20220624-658746d9.pth
swin_tiny swin/swin_tiny_patch4_window7_224.pth $swin/swin_tiny_patch4_window7_224.pth
resnet50 resnet/resnet50-0676ba61.pth $torchvision/resnet50-0676ba61.pth
resnet101 resnet/resnet101-63fe2227.pth $torchvision/resnet101-63fe2227.pth
"

if [[ $# -eq 0 ]]; then
    echo "error: name what to download: $(awk 'NF { printf "%s ", $1 }' <<< "$files")" >&2
    exit 2
fi
for name in "$@"; do
    read -r file address < <(awk -v name="$name" '$1 == name { print $2, $3 }' <<< "$files") || true
    if [[ -z "${file:-}" ]]; then
        echo "error: no $name; there are: $(awk 'NF { printf "%s ", $1 }' <<< "$files")" >&2
        exit 2
    fi
    target="$folder/$file"
    if [[ -f "$target" ]]; then
        echo "$target is there already"
        continue
    fi
    mkdir -p "$(dirname "$target")"
    part="$target.part"
    if ! curl --fail --location --retry 3 --continue-at - --output "$part" "$address"; then
        echo "error: $address could not be downloaded; is this machine online? The same command continues" >&2
        exit 1
    fi
    expected="$(sed -nE 's/.*-([0-9a-f]{8})\.pth$/\1/p' <<< "$address")"
    found="$(sha256sum "$part" | cut -c 1-64)"
    if [[ -n "$expected" && "$found" != "$expected"* ]]; then
        rm "$part"
        echo "error: $address has SHA-256 $found, which should begin with $expected; nothing was kept" >&2
        exit 1
    fi
    mv "$part" "$target"
    echo "$target, SHA-256 $found"
done
