#!/usr/bin/env bash
# usage: show_demo.sh before|after FOLDER VENV
# Say what the demonstration does, or where its report is and how to go on.
set -euo pipefail

when=$1 folder=$2 venv=$3
if [ "$when" = before ]; then
  cat <<END
Draws superlens frames and an electron image whose truth is known, stitches, enhances and measures them.
The first time it builds $venv with what the commands need, some minutes; no window, no test tools.
It ends with a report in $folder and changes nothing else on this machine.
END
  exit
fi
folder=$(cd "$folder" && pwd)
napari=$venv/bin/napari
[ -x "$napari" ] || echo "
For the panels: make .venv, which adds napari and what its windows need."
cat <<END

The report:     $folder/report.html
In napari:      $napari --with napari-semsr "$folder/mosaic/mosaic.ome.zarr" "$folder/mosaic/enhanced.ome.zarr"
The raw frames: $napari --with napari-semsr "$folder/scan"
With the mouse: start $napari, then Plugins > Superlens SEM,
                with Stitch mosaic, Open mosaic, Enhance, FRC map and Spectrum.
END
