#!/usr/bin/env bash
# usage: show_demo.sh FOLDER BIN
# Say where the demonstration's report is, and how to go on with the mouse.
set -euo pipefail

folder=$(cd "$1" && pwd)
bin=$2
cat <<END

The report:     $folder/report.html
In napari:      $bin/napari --with napari-semsr "$folder/mosaic/mosaic.ome.zarr" "$folder/mosaic/enhanced.ome.zarr"
The raw frames: $bin/napari --with napari-semsr "$folder/scan"
With the mouse: start $bin/napari, then Plugins > Superlens SEM super-resolution,
                with Stitch mosaic, Open mosaic, Enhance, FRC map and Spectrum.
END
