#!/usr/bin/env bash
# usage: show_demo.sh before|after FOLDER VENV
# Say what the demonstration does, or where its report is and how to go on.
set -euo pipefail

when=$1 folder=$2 venv=$3
if [ "$when" = before ]; then
  cat <<END
Draws superlens frames, stitches them, registers the mosaic to an electron image of its place,
trains a network there for a minute, evaluates it on a part that was held out, and shows another
sample, where that network must not be used. It ends with a report in $folder; the first time it
builds $venv, some minutes, and nothing else.
END
  exit
fi
folder=$(cd "$folder" && pwd)
napari=$venv/bin/napari
[ -x "$napari" ] || echo "
For the panels: make .venv, which adds napari and what its windows need."
cat <<END

The report:     $folder/report.html
In napari:      $napari --plugin napari-semsr "$folder/mosaic/mosaic.ome.zarr" "$folder/mosaic/sem.ome.tif" "$folder/adapted/mosaic-enhanced.ome.zarr"
The raw frames: $napari --plugin napari-semsr "$folder/scan"
With the mouse: start $napari, then Plugins > Superlens SEM,
                with Stitch, Train, Enhance and Resolution.
END
