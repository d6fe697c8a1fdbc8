#!/usr/bin/env bash
# Unpacks Debian's packages with photographs and clip art (for training) and with pages, screenshots, diagrams, maps and
# cartoons (for the test) into a folder, without installing them: fetch_pictures.sh FOLDER. README.md has their licences.
set -euo pipefail
folder=$1
training=(gcompris-qt-data tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    palapeli-data plasma-workspace-wallpapers openclipart-svg)
test=(gimp-help-en graphviz-doc gnuplot-doc kgeography-data texlive-latex-recommended-doc gnome-user-docs)

mkdir -p "$folder/debs" "$folder/training" "$folder/test"
(cd "$folder/debs" && apt-get download "${training[@]}" "${test[@]}")
for name in "${training[@]}"; do dpkg -x "$folder/debs/$name"_*.deb "$folder/training/$name"; done
for name in "${test[@]}"; do dpkg -x "$folder/debs/$name"_*.deb "$folder/test/$name"; done
rm -r "$folder/debs"
