#!/usr/bin/env bash
# usage: show_demo.sh FOLDER BIN
# Say where the demonstration's report is, and how to go on with the mouse.
set -euo pipefail

folder=$(cd "$1" && pwd)
bin=$2
store=$(find "$folder" -maxdepth 1 -name '*enhanced*.ome.zarr' | sort | head -n 1)
store=${store:-$(find "$folder" -maxdepth 1 -name '*.ome.zarr' | sort | head -n 1)}
cat <<END

The report:     $folder/report.html
In napari:      $bin/napari --with napari-semsr "$store"
With the mouse: start $bin/napari, then Plugins > Superlens SEM super-resolution,
                with Open mosaic, Enhance, FRC map and Spectrum.
END
