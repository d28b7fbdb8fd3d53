#!/usr/bin/env bash
# usage: show_demo.sh before|after FOLDER VENV
# Say what the demonstration does, or where its report is and how to go on.
set -euo pipefail

when=$1 folder=$2 venv=$3
if [ "$when" = before ]; then
  cat <<END
Draws superlens frames, stitches them, registers the mosaic to an electron image of its place,
enhances it, trains on half of that place for about a minute, and measures on the other half.
It ends with a report in $folder; the first time it builds $venv, some minutes, and nothing else.
END
  exit
fi
folder=$(cd "$folder" && pwd)
napari=$venv/bin/napari
[ -x "$napari" ] || echo "
For the panels: make .venv, which adds napari and what its windows need."
cat <<END

The report:     $folder/report.html
In napari:      $napari --plugin napari-semsr "$folder/place/mosaic.ome.zarr" "$folder/place/sem.ome.tif" "$folder/place/fine-tuned.ome.zarr"
The raw frames: $napari --plugin napari-semsr "$folder/scan"
With the mouse: start $napari, then Plugins > Superlens SEM,
                with Stitch mosaic, Register to SEM, Enhance, Train, FRC map and Spectrum.
END
